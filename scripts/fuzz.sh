#!/usr/bin/env bash
# Runs every fuzz test of the module for FUZZTIME each: go test takes one of them at a time. With arguments, only those
# of the packages named ("./pkg/config").
set -euo pipefail
cd "$(dirname "$0")/.."

fuzztime=${FUZZTIME:-30s}
failed=0
found=0
while IFS=: read -r file name; do
  found=$((found + 1))
  package=./$(dirname "$file")
  echo "== $package $name for $fuzztime"
  go test -run='^$' -fuzz="^${name}\$" -fuzztime="$fuzztime" "$package" || failed=1
done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' -- "${@:-.}" | sed 's/:func /:/; s|^\./||' | sort)

if [ "$found" -eq 0 ]; then
  echo "fuzz: no fuzz test found in ${*:-the module}" >&2
  exit 1
fi
exit "$failed"
