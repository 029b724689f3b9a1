#!/usr/bin/env bash
# Has systemd look at the units: each must be free of complaints, and berth.service exposed 1.5 at most.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v systemd-analyze >/dev/null; then
  echo "units: systemd-analyze is not installed, nothing was checked" >&2
  exit 0
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# verify wants every command to be there; the package puts berth at /usr/bin.
for unit in systemd/*.service; do
  sed 's#/usr/bin/berth#/bin/true#' "$unit" >"$dir/${unit##*/}"
done

failed=0
complaints=$(systemd-analyze verify --man=no "$dir"/*.service 2>&1) || failed=1
# Units that this machine's own packages bring are theirs to mend.
complaints=$(grep -F berth <<<"$complaints" || true)
if [ -n "$complaints" ]; then
  printf 'units: systemd-analyze verify complains:\n%s\n' "$complaints" >&2
  failed=1
fi
if ! table=$(systemd-analyze security --offline=true --no-pager --threshold=15 "$dir/berth.service" 2>&1); then
  printf '%s\nunits: berth.service is exposed more than 1.5\n' "$table" >&2
  failed=1
fi
tail -n 1 <<<"$table"
systemd-sysusers --dry-run "$PWD/systemd/berth.sysusers" >/dev/null 2>"$dir/sysusers" || { cat "$dir/sysusers" >&2; failed=1; }
exit "$failed"
