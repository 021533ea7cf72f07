#!/bin/sh
# Type-checks and builds the JavaScript that the wheel carries, which is committed, so that users need no Node.
#   tools/js.sh build    leaves the fresh build in widgets/nbtune_widgets/static
#   tools/js.sh check    also fails where the build that stood there differs from it
set -eu
cd "$(dirname "$0")/.."
npm="$(pwd)/tools/node.sh npm"
static=nbtune_widgets/static
before=$(pwd)/build/static-before
rm -rf "$before" && mkdir -p build
cd widgets
[ ! -d $static ] || cp -R $static "$before"

if ! cmp -s package-lock.json node_modules/.nbtune-lock.json; then
    $npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
    cp package-lock.json node_modules/.nbtune-lock.json
fi
$npm run --silent check
$npm run --silent build

if [ "${1:-build}" = check ] && ! diff -r -q "$before" $static; then
    echo "widgets/$static was not the build of widgets/src; it is now: look at it and commit it." >&2
    exit 1
fi
