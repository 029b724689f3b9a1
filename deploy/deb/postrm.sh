#!/bin/sh
# Purge removes state and configuration. Files in /etc/berth that other packages or administrators put there stay, and
# so do the user and group berth: files elsewhere may be theirs.
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
[ "$1" = purge ] || exit 0

rm -rf /var/lib/berth
rmdir --ignore-fail-on-non-empty /etc/berth/conf.d /etc/berth 2>/dev/null || true
