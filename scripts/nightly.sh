#!/usr/bin/env bash
# What `make nightly` runs: the long forms of what CI runs briefly. Every one runs even where an earlier one failed; in
# the end each is named with its time, and the script fails if any of them did. With arguments, only those named:
# `nightly.sh model fuzz`. The variables scale them.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

make=${MAKE:-make}
begin=$SECONDS
wanted=" $* "
ran=()
failed=()

# run NAME COMMAND...: its output is shown as it comes, for some take an hour.
run() {
  local name=$1 status=0 from=$SECONDS
  shift
  if [ "$wanted" != '  ' ] && [[ $wanted != *" $name "* ]]; then return; fi
  printf '\n==== %s: %s (%s)\n' "$name" "$*" "$(date +%H:%M:%S)"
  "$@" </dev/null || status=$?
  ran+=("$(printf '%-12s %-7s %5ds' "$name" "$([ "$status" -eq 0 ] && echo ok || echo FAILED)" $((SECONDS - from)))")
  [ "$status" -eq 0 ] || failed+=("$name")
  printf '==== %s\n' "${ran[-1]}"
}

run model "$make" model MODEL="${MODEL:-24000}"
run mutants "$make" mutants
run known-faults "$make" known-faults
run crash "$make" crash CRASH="${CRASH:-2000}"
run chaos "$make" chaos CHAOS="${CHAOS:-3m}"
run faults "$make" faults FAULTS="${FAULTS:-10m}"
run fuzz "$make" fuzz FUZZTIME="${FUZZTIME:-5m}"
run fleet "$make" fleet FLEET="${FLEET:-100 1000}"

[ "${#ran[@]}" -gt 0 ] || { echo "nightly: there is nothing named $*" >&2; exit 2; }
printf '\n'
printf '%s\n' "${ran[@]}"
if [ "${#failed[@]}" -gt 0 ]; then
  printf 'nightly: FAILED: %s (%ds)\n' "${failed[*]}" $((SECONDS - begin))
  exit 1
fi
printf 'nightly: ok (%ds)\n' $((SECONDS - begin))
