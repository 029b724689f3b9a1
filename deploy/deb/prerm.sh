#!/bin/sh
# Removal stops the agent and says what it leaves. Before an upgrade the agent goes on: it is restarted afterwards.
set -e
[ "$1" = remove ] || exit 0

if systemctl --quiet is-enabled berth.service 2>/dev/null; then
	mkdir -p /var/lib/berth
	: >/var/lib/berth/removed # a later installation enables it again
	systemctl --quiet disable berth.service berth-boot.service
fi
if [ -d /run/systemd/system ]; then systemctl stop berth.service; fi

left=$(/usr/bin/berth ledger 2>/dev/null) || left=
if [ -n "$left" ]; then
	echo 'berth: these targets stay registered, and nobody looks after them any more:'
	echo "$left" | sed 's/^/  /'
	echo 'berth: to take them out: install berth again and run "berth drain --all", or aws elbv2 deregister-targets.'
fi
