#!/usr/bin/env bash
# Makes sure that commands are there: `need.sh gcc dockerd`. What is missing is installed from the distribution where
# that is possible (Debian or Ubuntu, as root), saying so; elsewhere one sentence says what to install.
set -euo pipefail

# Daemons lie in sbin, which is not in everybody's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

have() {
  case $1 in
    # The race detector needs a compiler *and* the C library's headers.
    gcc) command -v gcc >/dev/null && printf '#include <stdlib.h>\n' | gcc -E - >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# packages COMMAND: the Debian packages that bring it.
packages() {
  case $1 in
    gcc) echo gcc libc6-dev ;;
    dockerd | docker) echo docker.io iptables ;;
    ip) echo iproute2 ;;
    aws) echo awscli ;;
    promtool) echo prometheus ;; # Debian has it in no package of its own
    systemd-analyze) echo systemd ;;
    dpkg-deb) echo dpkg ;;
    *) echo "$1" ;;
  esac
}

missing=()
install=()
for command in "$@"; do
  have "$command" && continue
  missing+=("$command")
  read -ra more <<<"$(packages "$command")"
  install+=("${more[@]}")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "need: ${missing[*]} not found, and only Debian's and Ubuntu's packages can be installed from here: install ${missing[*]} and try again" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "need: ${missing[*]} not found: run this as root, or first: sudo apt-get install ${install[*]}" >&2
  exit 1
fi

echo "need: ${missing[*]} not found, installing ${install[*]} (apt-get)" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install -y --no-install-recommends "${install[@]}"; } >"$log" 2>&1 </dev/null; then
  tail -n 20 "$log" >&2
  echo "need: apt-get could not install ${install[*]}: see above" >&2
  exit 1
fi
for command in "${missing[@]}"; do
  have "$command" || { echo "need: ${install[*]} installed, but there is still no $command" >&2; exit 1; }
done
