#!/usr/bin/env bash
# Follows a stream into a target, with `acknowledge` `write`. For a service that SIGTERM stops.
#
#   follow.sh CONFIG TARGET [ARGUMENT...]
#
# The script passes SIGTERM and SIGINT to the tap alone. The tap ends after the page in hand. The target then loads the rest of
# the pipe and ends by itself. (A signal to both loses that rest: see the README, "What is guaranteed".)
set -u
config=$1
shift

exec {pipe}> >(exec "$@")
target=$!
tap-streamduo --config "$config" --config ENV --follow >&"$pipe" &
tap=$!
trap 'kill -TERM "$tap" 2> /dev/null' TERM INT
exec {pipe}>&-

# A signal interrupts `wait`: wait again while the process lives.
while wait "$tap"; status=$?; kill -0 "$tap" 2> /dev/null; do :; done
while wait "$target"; loaded=$?; kill -0 "$target" 2> /dev/null; do :; done
[ "$loaded" -eq 0 ] || exit "$loaded"
exit "$status"
