#!/usr/bin/env bash
# Runs every fuzz test of the module for FUZZTIME each, two at a time with half of the processors each: go test takes one
# of them at a time, and builds its package anew first. Making an input that is new smaller may take ten tries: go test
# would go on for a minute, which is longer than all there is. With arguments, only those of the packages named ("./pkg/config").
set -euo pipefail
cd "$(dirname "$0")/.."

export fuzztime=${FUZZTIME:-30s} workers=$((($(nproc) + 1) / 2))

# fuzz PACKAGE NAME: what it says is printed at its end, as one block.
fuzz() {
  local out status=0
  out=$(go test -run='^$' -fuzz="^$2\$" -fuzztime="$fuzztime" -fuzzminimizetime=10x -parallel="$workers" "$1" 2>&1) || status=1
  printf '== %s %s for %s\n%s\n' "$1" "$2" "$fuzztime" "$out"
  return "$status"
}
export -f fuzz

found=()
while IFS=: read -r file name; do
  found+=("./$(dirname "$file") $name")
done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' -- "${@:-.}" | sed 's/:func /:/; s|^\./||' | sort)
if [ "${#found[@]}" -eq 0 ]; then
  echo "fuzz: no fuzz test found in ${*:-the module}" >&2
  exit 1
fi
# shellcheck disable=SC2016 # for the inner bash
if ! printf '%s\n' "${found[@]}" | xargs -P 2 -L 1 bash -c 'fuzz "$0" "$1"'; then
  echo "fuzz: some of ${#found[@]} fuzz tests failed" >&2
  exit 1
fi
echo "fuzz: ${#found[@]} fuzz tests, $fuzztime each"
