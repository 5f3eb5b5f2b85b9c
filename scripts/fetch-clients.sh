#!/bin/sh
# Installs the official Ollama, OpenAI and Anthropic clients and a client for hostile requests, as
# pinned in tests/clients, into the user's cache: once, and again when the pins change. Writes
# nothing to the checkout. Prints the folder on standard output; everything else goes to standard
# error. Needs python3 with venv (Debian: python3-venv), npm, and the network.
set -eu

pins=$(cd "$(dirname "$0")/../tests/clients" && pwd)
cache="${XDG_CACHE_HOME:-${HOME:?HOME is not set; set it or XDG_CACHE_HOME}/.cache}/hearth"
clients="$cache/clients"

say() { printf 'fetch-clients: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# Each folder contains a copy of the lock file it was made from.
is_current() { # NAME LOCK
    cmp -s "$pins/$1/$2" "$clients/$1/$2"
}

from_python() { # NAME FOLDER
    python3 -m venv "$2" || fail 'python3 has no venv; on Debian and Ubuntu: apt-get install python3-venv'
    "$2/bin/python3" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        --requirement "$pins/$1/requirements.txt" >&2 \
        || fail "the $1 clients could not be installed; check the network (or pip's settings) and run this again"
    cp "$pins/$1/requirements.txt" "$2/"
}

python() { from_python python "$1"; }

hostile() { from_python hostile "$1"; }

node() {
    mkdir "$1"
    cp "$pins/node/package.json" "$pins/node/package-lock.json" "$1/"
    (cd "$1" && npm ci --ignore-scripts --no-fund --no-audit --loglevel=error >&2) \
        || fail "the Node clients could not be installed; check the network (or npm's settings) and run this again"
}

fetch() { # NAME LOCK
    if is_current "$@"; then
        return 0
    fi
    say "installing the $1 clients of tests/clients/$1/$2 ..."
    "$1" "$work/$1"
    # On one file system, so that the clients appear atomically.
    rm -rf "${clients:?}/$1"
    mv "$work/$1" "$clients/$1" || fail "the clients could not be moved to $clients/$1"
}

mkdir -p "$clients" || fail "the folder $clients cannot be made; is the disk full or read-only?"
work=$(mktemp -d "$clients/fetch.XXXXXX") || fail "no room for a temporary folder in $clients"
trap 'wait; rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM

fetch python requirements.txt &
python_pid=$!
fetch hostile requirements.txt &
hostile_pid=$!
fetch node package-lock.json &
wait "$!" || exit 1
wait "$python_pid" || exit 1
wait "$hostile_pid" || exit 1
printf '%s\n' "$clients"
