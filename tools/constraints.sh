#!/bin/sh
# Writes constraints.txt from what .venv holds: no local version parts ("+cpu"), and not nbtune itself.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build
{
    head -n 1 constraints.txt
    .venv/bin/python -m pip freeze --exclude-editable --disable-pip-version-check | grep -v -e '^#' -e '^-e' -e ' @ ' | sed 's/+[A-Za-z0-9.]*$//'
} > build/constraints.txt
mv build/constraints.txt constraints.txt
