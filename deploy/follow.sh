#!/usr/bin/env bash
# A stream followed for ever into a target, with `acknowledge` `write`: for a service that is stopped by SIGTERM.
#
#   follow.sh CONFIG TARGET [ARGUMENT...]
#
# SIGTERM and SIGINT go to the tap alone. It ends after the page in hand, and the target then loads what it has taken from
# the pipe and ends by itself. (A signal to both would lose that: see the README, "What is guaranteed".)
set -u
config=$1
shift

exec {pipe}> >(exec "$@")
target=$!
tap-streamduo --config "$config" --config ENV --follow >&"$pipe" &
tap=$!
trap 'kill -TERM "$tap" 2> /dev/null' TERM INT
exec {pipe}>&-

# A signal interrupts `wait`; the tap is then still to be waited for.
while wait "$tap"; status=$?; kill -0 "$tap" 2> /dev/null; do :; done
while wait "$target"; loaded=$?; kill -0 "$target" 2> /dev/null; do :; done
[ "$loaded" -eq 0 ] || exit "$loaded"
exit "$status"
