#!/usr/bin/env bash
# A Docker engine on /var/run/docker.sock, for tests and the demo.
#
#   engine.sh with -- COMMAND…   run COMMAND with an engine; one that had to be started is ended afterwards
#   engine.sh start              start one if none answers, and leave it running
#   engine.sh stop               end the engine that this script started; never another one
#   engine.sh status             say who answers
#   engine.sh forget             remove the images that tests and demo built
#
# If none answers and dockerd is not installed, it is installed from the distribution (Debian or Ubuntu, as root).
# dockerd is started directly: there may be no init system here, and a policy-rc.d that denies services.
set -euo pipefail

socket=/var/run/docker.sock
state=/run/berth-engine # pid: of the dockerd started here; keep: do not end it after `with`; log: what it said
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf 'engine: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
cli() { timeout "${deadline:-20}" docker -H "unix://$socket" "$@"; }
answers() { command -v docker >/dev/null && [ -S "$socket" ] && cli version >/dev/null 2>&1; }

# ours: the pid of a running dockerd that this script started; fails if there is none.
ours() {
  local pid
  pid=$(cat "$state/pid" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] && echo "$pid"
}

start() {
  answers && return
  local output other
  if [ -S "$socket" ] && command -v docker >/dev/null; then
    # Once more: a socket unit starts its engine on the first connection, which takes a while.
    output=$(deadline=60 cli version 2>&1 >/dev/null) && return
    case $output in
      *'permission denied'*) die "a Docker engine listens on $socket, but not to $(id -un): run this as root or join group docker" ;;
    esac
  fi
  "$here/need.sh" docker dockerd ip
  if [ -d /run/systemd/system ] && await 15; then
    say "the distribution's package has started an engine; it stays: systemctl stop docker ends it"
    return
  fi
  [ "$(id -u)" -eq 0 ] || die "no Docker engine answers on $socket: start one (systemctl start docker), or run this as root"
  if other=$(cat /var/run/docker.pid 2>/dev/null) && [ "$(cat "/proc/$other/comm" 2>/dev/null)" = dockerd ]; then
    die "a Docker engine runs (pid $other) but does not answer on $socket: end it or see what ails it"
  fi

  mkdir -p "$state"
  say "no Docker engine answers on $socket: starting dockerd, its log is in $state/log"
  # A session of its own: Ctrl-C is meant for the tests, and they need the engine to clean up. The locks are not for it.
  setsid dockerd --host "unix://$socket" >"$state/log" 2>&1 </dev/null 7>&- 8>&- &
  echo $! >"$state/pid"
  # Until then it is still a shell on its way to dockerd, which ours would not know.
  while kill -0 $! 2>/dev/null && ! ours >/dev/null; do sleep 0.05; done
  if ! await 60; then
    tail -n 15 "$state/log" >&2
    stop
    die "dockerd did not start: its last words are above, the rest in $state/log"
  fi
}

# await SECONDS: wait until an engine answers; give up early if ours has died.
await() {
  local until=$((SECONDS + $1))
  while ! answers; do
    [ "$SECONDS" -lt "$until" ] || return 1
    [ ! -e "$state/pid" ] || ours >/dev/null || return 1
    sleep 0.2
  done
}

stop() {
  local pid until=$((SECONDS + 40))
  if pid=$(ours); then
    say "ending dockerd (pid $pid), which was started here"
    kill "$pid" 2>/dev/null || true
    while ours >/dev/null && [ "$SECONDS" -lt "$until" ]; do sleep 0.1; done
    if ours >/dev/null; then
      say "dockerd (pid $pid) did not end in 40 s: killing it"
      kill -KILL "$pid" 2>/dev/null || true
    fi
  fi
  rm -f "$state/pid" "$state/keep"
}

# locked COMMAND: run it while nobody else starts or ends the engine.
locked() {
  if ! mkdir -p "$state" 2>/dev/null || [ ! -w "$state" ]; then
    "$@" # not root: nothing is started or ended here
    return
  fi
  { flock 8; "$@"; } 8>"$state/lock"
}

# Users hold a shared lock: the last of them to leave ends an engine that was started for them.
with() {
  [ "${1:-}" != -- ] || shift
  [ $# -gt 0 ] || die "with what? engine.sh with -- COMMAND…"
  local child status=0 users=''
  if mkdir -p "$state" 2>/dev/null && [ -w "$state" ]; then
    users=yes
    exec 7>"$state/users"
    flock -s 7
  fi
  # shellcheck disable=SC2064 # $users as it is now
  trap "leave $users" EXIT
  locked start

  # A process group of its own, so that a signal reaches all of the command once, and this script after it.
  set -m
  "$@" </dev/null 7>&- &
  child=$!
  set +m
  trap 'kill -INT -- "-$child" 2>/dev/null' INT
  trap 'kill -TERM -- "-$child" 2>/dev/null' TERM HUP
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do # wait was interrupted by a signal, which has been passed on
    status=0
    wait "$child" || status=$?
  done
  trap '' INT TERM HUP
  exit "$status"
}

leave() {
  [ -n "${1:-}" ] || return 0
  if flock -n 7 && [ ! -e "$state/keep" ]; then
    [ ! -e "$state/pid" ] || locked stop
  fi
}

forget() {
  answers || return 0
  local images
  mapfile -t images < <(cli images --quiet --filter label=berth-test.image | sort -u)
  [ "${#images[@]}" -eq 0 ] || cli rmi --force "${images[@]}" >/dev/null
}

case ${1:-} in
  with) shift; with "$@" ;;
  start) locked start; if ours >/dev/null; then touch "$state/keep"; fi ;;
  stop) locked stop ;;
  forget) forget ;;
  status)
    answers || die "no Docker engine answers on $socket"
    say "Docker $(cli version --format '{{.Server.Version}}, API {{.Server.APIVersion}}') answers on $socket$(pid=$(ours) && echo ", started here (pid $pid)")"
    ;;
  *) sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
