#!/bin/sh
# First installation: enabled and started if this host is configured, else not at all. Upgrade: restarted, and no target
# moves: they stay registered while the agent is away, and the ledger tells the new one which are its own.
set -e
[ "$1" = configure ] || exit 0

systemd-sysusers berth.conf

booted() { [ -d /run/systemd/system ]; }
# Where an administrator's policy says that packages start nothing, this starts nothing.
invoke() {
	if command -v deb-systemd-invoke >/dev/null; then deb-systemd-invoke "$@"; else systemctl "$@"; fi
}
configured() {
	grep -Eqs '^target_groups:' /etc/berth/berth.yaml /etc/berth/conf.d/*.yaml ||
		grep -Eqs '^[[:space:]]*BERTH_TARGET_GROUP=.' /etc/default/berth
}

if booted; then systemctl daemon-reload; fi

removed=/var/lib/berth/removed # left by the removal of a package that was enabled
if [ -n "$2" ] && [ ! -e "$removed" ]; then
	# As below, a start that fails is no failure of the upgrade: dpkg would leave the package half-configured.
	if booted && systemctl --quiet is-active berth.service && ! invoke restart berth.service; then
		cat >&2 <<-'END'
			berth: the new version is installed and does not start; it is tried again every 10 s. See what is wrong:
			  systemctl status berth; berth check
		END
	fi
	exit 0
fi
rm -f "$removed"
if configured; then
	systemctl --quiet enable berth.service
	# A start that fails is tried again every 10 s, and is no failure of the installation.
	if booted; then invoke start berth.service || true; fi
	exit 0
fi
cat <<-'END'
	berth: no target group is configured yet, so nothing was enabled. Write /etc/berth/berth.yaml, then:
	  systemctl enable --now berth.service
END
