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
[ "$what" = engine ] && exit
[ -s models/bundle/bundle.json ] || fail "models/bundle: there is no bundle to serve; make export writes it, make pull fetches it"
[ -d .git ] || fail ".git: no folder; jobs run in a clone of this one, so start from a clone, not from a worktree or an archive"
# What containers read they read as other users; the secrets have modes of their own.
closed=$(find models/bundle .git deploy -path deploy/secrets -prune -o \( -type d ! -perm -o=rx -o -type f ! -perm -o=r \) -print 2> /dev/null | head -n 1)
[ -z "$closed" ] || fail "$closed: containers run as other users, who can't read it; chmod -R o+rX models/bundle .git deploy && chmod 700 deploy/secrets"
