#!/usr/bin/env bash
# Builds the Debian packages into $DIST (dist): `package.sh [ARCH…]`, amd64 and arm64 unless named. VERSION, REVISION and
# DATE come from make. Times are the commit's, so that the same commit gives the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

go=${GO:-go}
dist=${DIST:-dist}
: "${VERSION:?}" "${REVISION:?}" "${DATE:?}"
[ $# -gt 0 ] || set -- amd64 arm64

# As Debian orders versions: 1.2.0~rc1 is before 1.2.0, and 1.2.0+5.g0123abc, five commits later, is after it.
PACKAGE_VERSION=$(sed -E 's/-([0-9]+)-(g[0-9a-f]+)/+\1.\2/; s/-dirty$/+dirty/; s/-/~/' <<<"$VERSION")
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export PACKAGE_VERSION SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compile() { # ARCH FILE
  CGO_ENABLED=0 GOOS=linux GOARCH=$1 "$go" build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=$VERSION -X main.revision=$REVISION -X main.date=$DATE" -o "$2" ./cmd/agent
}
# Completions and man pages are the same everywhere; they come from a program that runs here.
native=$("$go" env GOHOSTARCH)
compile "$native" "$work/berth"
"$go" build -modfile=tools/nfpm/go.mod -o "$work/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm

mkdir "$work/completions"
"$work/berth" completion bash >"$work/completions/berth.bash"
"$work/berth" completion zsh >"$work/completions/_berth"
"$work/berth" completion fish >"$work/completions/berth.fish"
"$work/berth" man "$work/man"
gzip -9n "$work"/man/*

mkdir -p "$dist"
for ARCH in "$@"; do
  BUILD=$work/$ARCH
  export ARCH BUILD
  mkdir -p "$BUILD"
  cp -R "$work/completions" "$work/man" "$BUILD"
  if [ "$ARCH" = "$native" ]; then cp "$work/berth" "$BUILD/berth"; else compile "$ARCH" "$BUILD/berth"; fi
  "$work/nfpm" package --config deploy/nfpm.yaml --packager deb --target "$dist/berth_${PACKAGE_VERSION}_$ARCH.deb" >/dev/null
  echo "$dist/berth_${PACKAGE_VERSION}_$ARCH.deb"
done
