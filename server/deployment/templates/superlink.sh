#!/bin/sh
# Starts the SuperLink, on the loopback: hospitals reach it through nginx alone.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
state=${XSITE_STATE:-{{ c.state_dir }}}
export PATH="${XSITE_PROGRAMS:-{{ c.programs }}}:$PATH"
export FLWR_HOME="$state/flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 PYTHONUTF8=1
# It calls this machine alone, to which no proxy leads.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
export no_proxy=127.0.0.1,localhost,::1 NO_PROXY=127.0.0.1,localhost,::1
mkdir -p "$state"
cd "$state"
# XSITE_DATABASE=:flwr-in-memory: writes nothing, and a restart then ends the run and forgets the keys.
exec flower-superlink \
    --ssl-ca-certfile "$here/ca.crt" --ssl-certfile "$here/server.pem" --ssl-keyfile "$here/server.key" \
    --enable-supernode-auth --host 127.0.0.1 --port {{ c.superlink_port }} \
    --isolation process --superexec-auth-secret-file "$here/superexec.secret" \
    --disable-runtime-dependency-installation --database "${XSITE_DATABASE:-$state/superlink.db}"
