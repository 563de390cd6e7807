#!/usr/bin/env bash
# One run of one stream with `acknowledge` `commit`: for cron, a systemd timer or a Kubernetes CronJob.
#
#   load.sh CONFIG FOLDER TARGET [ARGUMENT...]
#
# CONFIG is the tap's config file, or ENV for the environment. FOLDER keeps the state, and the lock that keeps a second run
# away. The state is replaced only by a whole line that the target has printed, and in one step; also when the run has failed,
# since what the target had committed by then is committed. Ends with the exit code of the tap or the target, 0 if both ended well.
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
