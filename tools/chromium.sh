#!/bin/sh
# Sees to a Chromium for the browser tests where that is ours to do: as root on a Debian. Elsewhere the tests say what is missing.
set -eu
for name in "${NBTUNE_CHROMIUM:-chromium}" chromium-browser google-chrome "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
    if command -v "$name" >/dev/null 2>&1; then
        exit 0
    fi
done
if [ "$(id -u)" = 0 ] && [ -f /etc/debian_version ]; then
    echo "Installing Chromium for the browser tests."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null ||
        echo "Chromium could not be installed."
fi
