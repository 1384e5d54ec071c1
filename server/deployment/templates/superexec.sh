#!/bin/sh
# Starts the process that runs the coordinator's side of a run. It outlives a restart of the SuperLink.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
state=${XSITE_STATE:-{{ c.state_dir }}}
export PATH="${XSITE_PROGRAMS:-{{ c.programs }}}:$PATH"
export FLWR_HOME="$state/flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 PYTHONUTF8=1
# It calls this machine alone, to which no proxy leads.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
export no_proxy=127.0.0.1,localhost,::1 NO_PROXY=127.0.0.1,localhost,::1
export XSITE_HOME="$state" FLWR_SUPEREXEC_TASK_POLL_INTERVAL="${FLWR_SUPEREXEC_TASK_POLL_INTERVAL:-0.1}"
mkdir -p "$state/empty"
# Flower's processes import packages from the folder that they start in before the run's own.
cd "$state/empty"
exec flower-superexec --runtime-api-address 127.0.0.1:{{ c.superlink_port }} \
    --root-certificates "$here/ca.crt" --superexec-auth-secret-file "$here/superexec.secret"
