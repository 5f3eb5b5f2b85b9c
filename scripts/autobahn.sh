#!/usr/bin/env bash
# Runs Autobahn's core cases against our WebSocket code, as servers and as client. Needs Python 2.7.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'autobahn: %s\n' "$*" >&2; exit 1; }

cache=${XDG_CACHE_HOME:-$HOME/.cache}/hearth/autobahn
suite=$cache/bin/wstest
if [ ! -x "$suite" ]; then
  # pyenv provides Python 2.7 where it is installed.
  export PYENV_VERSION=${PYENV_VERSION:-2.7.18}
  python=$(command -v python2.7) || fail "no Python 2.7 here: install it (pyenv install 2.7.18) and run this again"
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' || fail "$python is not Python 2.7"
  "$python" -m virtualenv --version >/dev/null 2>&1 || "$python" -m pip install --user -q virtualenv==20.15.1
  rm -rf "$cache"
  "$python" -m virtualenv -q "$cache"
  "$cache/bin/pip" install -q autobahntestsuite==25.10.1
fi

cargo build --locked -q ${PROFILE:-} -p hearth-tests --example echo
target=${CARGO_TARGET_DIR:-target}
echo=$target/debug/examples/echo
[ "${PROFILE:-}" = --release ] && echo=$target/release/examples/echo

work=$(mktemp -d)
pids=()
end() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; rm -rf "$work"; }
trap end EXIT
cases='"cases": ["*"], "exclude-cases": ["12.*", "13.*"], "exclude-agent-cases": {}'

# As server: the status hub, and the relay's tunnel.
for server in hub tunnel; do
  "$echo" "$server" >"$work/$server.port" & pids+=($!)
  until [ -s "$work/$server.port" ]; do kill -0 "${pids[-1]}" || fail "the server ended"; sleep 0.1; done
  port=$(cat "$work/$server.port")
  cat >"$work/$server.json" <<JSON
{"outdir": "$work/$server", "servers": [{"agent": "hearth", "url": "ws://127.0.0.1:$port"}], $cases}
JSON
  (cd "$work" && "$suite" -m fuzzingclient -s "$server.json" >"$server.log" 2>&1) || { tail -20 "$work/$server.log"; fail "the suite broke"; }
done

# As client.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/server.json" <<JSON
{"url": "ws://127.0.0.1:$port", "outdir": "$work/client", $cases}
JSON
(cd "$work" && exec "$suite" -m fuzzingserver -s server.json -w "ws://127.0.0.1:$port" >server.log 2>&1) & pids+=($!)
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do kill -0 "${pids[-1]}" || { cat "$work/server.log"; fail "the suite ended"; }; sleep 0.1; done
"$echo" call "$port"

python3 - "$work" <<'PYTHON'
import collections, json, sys
wrong = False
for side in ("hub", "tunnel", "client"):
    with open(f"{sys.argv[1]}/{side}/index.json") as file:
        cases = json.load(file)["hearth"]
    counts = collections.Counter()
    for name, case in sorted(cases.items()):
        for what in ("behavior", "behaviorClose"):
            counts[what, case[what]] += 1
            if case[what] not in ("OK", "NON-STRICT", "INFORMATIONAL"):
                wrong = True
                print(f"! {side} {name}: {what} {case[what]}")
    print(f"{side}: {len(cases)} cases", dict((" ".join(key), n) for key, n in sorted(counts.items())))
    wrong |= len(cases) < 301
sys.exit(wrong)
PYTHON
