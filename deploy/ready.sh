#!/bin/sh
# `ready.sh all|engine COMMAND…`: whether this machine can run deploy/compose.yaml by COMMAND (docker compose); one line says what is missing.
set -eu
what=$1
shift
fail() {
    echo "error: $1" >&2
    exit 1
}
command -v "$1" > /dev/null || fail "there is no $1 here; install Docker with its compose plugin, or name another: make up COMPOSE='podman compose'"
"$@" version > /dev/null 2>&1 || fail "'$*' does not work here; install the compose plugin (docker-compose-plugin), or name another with COMPOSE="
"$@" ls > /dev/null 2>&1 || fail "'$*' finds no engine; start it (systemctl start docker), or ask to be in its group"
[ "$what" = engine ] || [ -s models/bundle/bundle.json ] || fail "models/bundle: there is no bundle to serve; make export writes it, make pull fetches it"
