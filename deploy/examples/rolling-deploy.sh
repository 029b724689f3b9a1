#!/bin/bash
# Replaces the running containers of a service by as many new ones, without losing a request.
#
#   IMAGE=my/web:2 GROUP=web rolling-deploy.sh NAME [docker run options...]
#
# Containers are called NAME-SOMETHING and carry the label service=NAME. IMAGE is what to run, GROUP the target group's key
# (default: NAME). COUNT is how many (default: as many as run, at least 1), TIMEOUT how long they may take to become
# healthy (default: 5m). Further arguments go to docker run; STOP_FLAGS to berth stop.
#
# It needs group docker and group berth, or root. Exit code 0: replaced; else the old ones still serve.
set -euo pipefail

name=${1:?usage: IMAGE=... [GROUP=...] rolling-deploy.sh NAME [docker run options...]}
shift
: "${IMAGE:?IMAGE says what to run}"
group=${GROUP:-$name}

mapfile -t old < <(docker ps -q --filter "label=service=$name")
count=${COUNT:-$((${#old[@]} > 0 ? ${#old[@]} : 1))}

new=()
undo() {
  echo "the new containers are removed; the old ones serve on" >&2
  [ ${#new[@]} -eq 0 ] || docker rm -f "${new[@]}" >/dev/null
}
trap undo EXIT

for _ in $(seq "$count"); do
  new+=("$(docker run -d -P --name "$name-$(date +%s)-$RANDOM" -l "service=$name" -l "berth.targets=$group" "$@" "$IMAGE")")
done
berth wait --for healthy --timeout "${TIMEOUT:-5m}" "${new[@]}"
trap - EXIT

if [ ${#old[@]} -gt 0 ]; then
  # shellcheck disable=SC2086 # STOP_FLAGS are several words
  berth stop ${STOP_FLAGS:-} "${old[@]}"
  docker rm "${old[@]}" >/dev/null
fi
echo "$name: ${#new[@]} new, ${#old[@]} replaced"
