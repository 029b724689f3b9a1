#!/usr/bin/env bash
# What `make check` runs: everything that needs neither Docker nor, once the module and build caches are warm, the
# network. Every step runs even where an earlier one failed, so that one run shows all there is to mend.
# --without-unit-tests leaves those out, for a run that has `make test` beside it: that runs them with the race detector,
# and vet and linters use what is compiled for it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

go=${GO:-go}
tool() { "$go" tool -modfile=tools/go.mod "$@"; }
failed=()

# step NAME COMMAND...: run it, show its output only if it fails, and how long it took.
step() {
  local name=$1 out begin=$SECONDS
  shift
  if out=$("$@" 2>&1); then
    printf 'ok    %-28s %3ds\n' "$name" $((SECONDS - begin))
  else
    printf 'FAIL  %-28s %3ds\n' "$name" $((SECONDS - begin))
    printf '%s\n' "$out" | sed 's/^/      /'
    failed+=("$name")
  fi
}

formatted() {
  local files
  files=$(tool gofumpt -l .) || { printf '%s\n' "$files"; return 1; }
  [ -z "$files" ] || { printf 'not formatted, run make fmt:\n%s\n' "$files"; return 1; }
}
# As programs and packages are built, so that what this compiles is in the cache for them.
compiles() { CGO_ENABLED=0 GOOS=linux GOARCH=$1 "$go" build -trimpath -buildvcs=false ./...; }
# No Go module brings shellcheck: it is used where it is installed, and bash -n everywhere.
scripts_parse() {
  local files
  mapfile -t files < <(git ls-files 'scripts/*.sh' '.ci/*' 'deploy/**/*.sh')
  for f in "${files[@]}"; do bash -n "$f" || return 1; done
  if command -v shellcheck >/dev/null; then shellcheck -x "${files[@]}"; fi
}

step 'gofumpt' formatted
step 'go mod tidy' "$go" mod tidy -diff
step 'build linux/amd64' compiles amd64
step 'build linux/arm64' compiles arm64
if [ "${1:-}" = --without-unit-tests ]; then export GOFLAGS="${GOFLAGS:-} -race"; fi
step 'go vet' "$go" vet ./...
step 'golangci-lint' tool golangci-lint run ./...
step 'scripts' scripts_parse
step 'units' scripts/units.sh
if [ "${1:-}" != --without-unit-tests ]; then
  step 'unit tests' "$go" test -short -timeout=10m ./...
fi

if [ "${#failed[@]}" -gt 0 ]; then
  printf 'check: failed: %s\n' "${failed[*]}" >&2
  exit 1
fi
