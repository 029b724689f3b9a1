#!/usr/bin/env bash
# Builds the image $IMAGE (berth:VERSION) for $ARCH (this host's) on the local engine, from nothing: no registry is asked.
# VERSION, REVISION and DATE come from make.
set -euo pipefail
cd "$(dirname "$0")/.."

go=${GO:-go}
: "${VERSION:?}" "${REVISION:?}" "${DATE:?}"
arch=${ARCH:-$("$go" env GOHOSTARCH)}
image=${IMAGE:-berth:$(tr + - <<<"$VERSION")}
most=$((25 * 1000 * 1000)) # bytes

roots=
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
  if [ -s "$file" ]; then roots=$file; break; fi
done
[ -n "$roots" ] || { echo 'image: no CA certificates on this machine: install ca-certificates' >&2; exit 1; }

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
CGO_ENABLED=0 GOOS=linux GOARCH=$arch "$go" build -trimpath -buildvcs=false \
  -ldflags "-s -w -X main.version=$VERSION -X main.revision=$REVISION -X main.date=$DATE" -o "$context/berth" ./cmd/agent
install -m 0644 "$roots" "$context/ca-certificates.crt"
install -m 0644 Dockerfile "$context/Dockerfile"
mkdir -m 0755 "$context/empty"

# The classic builder, where the other one is not installed.
if docker buildx version >/dev/null 2>&1; then export DOCKER_BUILDKIT=1; else export DOCKER_BUILDKIT=0; fi
docker build --quiet --platform "linux/$arch" --tag "$image" \
  --label org.opencontainers.image.title=berth --label "org.opencontainers.image.version=$VERSION" \
  --label "org.opencontainers.image.revision=$REVISION" --label "org.opencontainers.image.created=$DATE" \
  --label org.opencontainers.image.licenses=Apache-2.0 ${LABEL:+--label "$LABEL"} "$context" >/dev/null
size=$(docker image inspect --format '{{.Size}}' "$image")
echo "$image ($((size / 1000000)) MB)"
[ "$size" -lt "$most" ] || { echo "image: $size bytes; at most $most are wanted" >&2; exit 1; }
