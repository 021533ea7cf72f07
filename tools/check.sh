#!/bin/sh
# Every check, each under its name; all are run even where one fails, and then this fails.
set -u
cd "$(dirname "$0")/.."
PATH="$(pwd)/.venv/bin:$PATH"
failed=

check() {
    name=$1
    shift
    echo "== $name"
    "$@" || failed="$failed $name"
}

check lint ruff check --quiet .
check format ruff format --check --quiet .
check types mypy
check layers lint-imports --no-logo
check sizes python tools/check_sizes.py
check javascript sh tools/js.sh check

if [ -n "$failed" ]; then
    echo "failed:$failed" >&2
    exit 1
fi
echo "all checks passed"
