#!/usr/bin/env bash
# Starts a relay and an agent connected to it, asks one question, and keeps running. Called by
# `./x run` with HEARTH_BIN_DIR set; $1 is 1 to end after the answer.
set -euo pipefail
once=$1
hearth=$HEARTH_BIN_DIR/hearth
data=${XDG_DATA_HOME:-$HOME/.local/share}/hearth
relay_address=${HEARTH_LISTEN:-127.0.0.1:8787}
relay=http://$relay_address
store=sqlite:$data/relay.db
logs=$data/logs
question=${HEARTH_QUESTION:-"In one short sentence: what is a hearth?"}

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
broken() { # HOP MESSAGE [LOG]
  printf 'run: the %s is broken: %s\n' "$1" "$2" >&2
  if [ -n "${3:-}" ] && [ -s "$3" ]; then
    printf 'the last lines of %s:\n' "$3" >&2
    tail -n 8 "$3" >&2
  fi
  exit 1
}

umask 077
mkdir -p "$logs"

pids=()
finish() {
  trap - EXIT INT TERM
  local pid
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A key to ask with and one to work with, both of the same account, and one for the dashboard; kept
# for later runs.
key() { # FILE NAME SCOPE...
  local file=$data/$1 name=$2 scopes=() scope
  shift 2
  [ -s "$file" ] && return 0
  for scope in "$@"; do scopes+=(--scope "$scope"); done
  "$hearth" key revoke --store "$store" "$name" >/dev/null 2>&1 || true
  "$hearth" key create --store "$store" --name "$name" "${scopes[@]}" >"$file.new" 2>"$file.said" ||
    broken relay "the store $store cannot be written" "$file.said"
  awk 'END { print $NF }' "$file.new" >"$file"
  rm -f "$file.new" "$file.said"
}
key requester.key this-machine enqueue read
key worker.key this-agent work
key admin.key this-operator admin

say "starting the relay on $relay"
"$hearth" relay --listen "$relay_address" --store "$store" >"$logs/relay.log" 2>&1 &
pids+=($!)
relay_pid=$!

until grep -q '^listening on' "$logs/relay.log"; do
  kill -0 "$relay_pid" 2>/dev/null || broken relay "it ended at once" "$logs/relay.log"
  sleep 0.05
done

agent_options=(--relay "$relay" --key-file "$data/worker.key" --engine auto)
if [ -n "${HEARTH_STATUS_PORT:-}" ]; then agent_options+=(--status-port "$HEARTH_STATUS_PORT"); fi
if [ -n "${HEARTH_HTTP_PORT:-}" ]; then agent_options+=(--http-port "$HEARTH_HTTP_PORT"); fi
if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
  say "starting hearth-desktop: look for the flame in the tray"
  agent_log=$logs/desktop.log
  "$HEARTH_BIN_DIR/hearth-desktop" "${agent_options[@]}" >"$agent_log" 2>&1 &
else
  say "no display: starting the headless agent instead of the desktop app"
  agent_log=$logs/agent.log
  "$hearth" agent "${agent_options[@]}" >"$agent_log" 2>&1 &
fi
pids+=($!)
agent_pid=$!

say "waiting for the relay and the engine"
for _ in $(seq 200); do # the hub starts quickly, unless the log is filtered
  if grep -q 'status hub listens' "$agent_log"; then break; fi
  kill -0 "$relay_pid" 2>/dev/null || broken relay "it ended" "$logs/relay.log"
  kill -0 "$agent_pid" 2>/dev/null ||
    broken agent "it ended at once (is another Hearth running? run: $hearth status)" "$agent_log"
  sleep 0.05
done
"$hearth" status --until ready --until paused --timeout 120 >"$logs/phase" 2>/dev/null &
phase_pid=$!
pids+=("$phase_pid")
wait -n "$phase_pid" "$relay_pid" "$agent_pid" && confirmed=1 || confirmed=0
kill -0 "$relay_pid" 2>/dev/null || broken relay "it ended" "$logs/relay.log"
kill -0 "$agent_pid" 2>/dev/null || broken agent "it ended" "$agent_log"
if [ "$confirmed" = 0 ]; then
  "$hearth" doctor --relay "$relay" --key-file "$data/requester.key" >&2 || true
  broken agent "it did not become ready within two minutes" "$agent_log"
fi
if grep -q '^paused' "$logs/phase"; then
  broken agent "its owner paused it, and a restart keeps that; press Resume in the tray, or run: $hearth resume"
fi

say "asking through $relay: $question"
"$hearth" ask --relay "$relay" --key-file "$data/requester.key" "$question" ||
  broken "path from the relay to the model" "no answer (see above)" "$agent_log"

[ "$once" = 1 ] && exit 0

cat >&2 <<SAY

Hearth is up.
  relay      $relay   Ollama, OpenAI and native API; key in $data/requester.key
  dashboard  $relay/   in a browser; key in $data/admin.key
  status     $("$hearth" status --address)   for overlay, tray and other clients; follow it: $hearth status --watch
  logs       $logs
  try        curl -H "Authorization: Bearer \$(cat $data/requester.key)" $relay/v1/models
Ctrl-C stops both.
SAY
while :; do
  wait -n "$relay_pid" "$agent_pid" && gone=0 || gone=$?
  kill -0 "$relay_pid" 2>/dev/null || broken relay "it ended with $gone" "$logs/relay.log"
  kill -0 "$agent_pid" 2>/dev/null || { say "the agent was quit; stopping the relay"; exit 0; }
done
