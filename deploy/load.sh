#!/usr/bin/env bash
# One run of one stream with `acknowledge` `commit`: for cron, a systemd timer or a Kubernetes CronJob.
#
#   load.sh CONFIG FOLDER TARGET [ARGUMENT...]
#
# CONFIG is the tap's config file, or ENV for the environment. FOLDER must exist. It holds the state, and a lock against a second
# run. The last whole line that the target printed replaces the state, in one step. This also happens when the run fails: the
# target has committed those records. The exit code is the tap's or the target's, 0 if both succeed.
set -uo pipefail
config=$(case $1 in ENV | /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac)
cd "$2" || exit
shift 2

exec {lock}> lock
if ! flock --nonblock "$lock"; then
    echo "load.sh: another run is under way in $PWD" >&2
    exit 0
fi

status=0
TAP_STREAMDUO_ACKNOWLEDGE=commit tap-streamduo --config "$config" --config ENV --state state.json | "$@" > states || status=$?
state=
while IFS= read -r line; do [ -n "$line" ] && state=$line; done < states
if [ -n "$state" ]; then printf '%s\n' "$state" > state.new && mv state.new state.json; fi
exit "$status"
