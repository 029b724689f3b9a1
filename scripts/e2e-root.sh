#!/usr/bin/env bash
# Prints the path of a Debian root for the end-to-end tests, as a tar file: systemd and what the package depends on,
# nothing else. It is made by debootstrap, as root, and kept in .cache: a file name stands for its list of packages.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=bookworm
packages=systemd,systemd-sysv,dbus,ca-certificates
# The mirror that apt uses here.
# shellcheck disable=SC2016 # apt-get's own variable
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)}
recipe=$(sha256sum scripts/e2e-root.sh | cut -c1-12)
cache=$PWD/.cache/e2e
root=$cache/$suite-$recipe.tar

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$root" ]; then
  PATH=$PATH:/usr/sbin:/sbin
  scripts/need.sh debootstrap >&2
  [ "$(id -u)" -eq 0 ] || { echo 'e2e-root: debootstrap needs root' >&2; exit 1; }
  work=$(mktemp -d) # not in the tree: /proc is mounted in it for a while
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$cache/debs"
  # In a mount namespace of its own: whatever ends it, no mount stays.
  unshare --mount --propagation private debootstrap --variant=minbase --include="$packages" --cache-dir="$cache/debs" "$suite" "$work" "$mirror" >"$cache/log" 2>&1 </dev/null ||
    { tail -n 20 "$cache/log" >&2; echo 'e2e-root: debootstrap failed' >&2; exit 1; }
  rm -rf "$work"/var/cache/apt/archives/*.deb "$work"/var/lib/apt/lists/* "$work"/usr/share/{doc,man,locale}
  : >"$work/etc/machine-id" # each machine gets one of its own
  echo e2e >"$work/etc/hostname"
  rm -f "$cache/$suite"-*.tar # of other recipes
  tar --numeric-owner --xattrs -C "$work" -cf "$root.new" .
  mv "$root.new" "$root"
fi
echo "$root"
