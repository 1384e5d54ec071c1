#!/bin/sh
# Starts {{ s.name }}'s node. It asks the coordinator for work; nobody connects to this machine.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
state=${XSITE_STATE:-{{ s.state_dir }}}
# $here/bin holds the flwr-clientapp that runs no code but the xsite that is installed here, and the
# flower-superexec that starts it at once.
export PATH="$here/bin:${XSITE_PROGRAMS:-{{ s.programs }}}:$PATH"
export FLWR_HOME="$state/flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 PYTHONUTF8=1
# HTTPS_PROXY may lead to the coordinator; what the node's processes say to each other stays here.
no_proxy="127.0.0.1,localhost,::1,${no_proxy:-${NO_PROXY:-}}"
export no_proxy="${no_proxy%,}"
export NO_PROXY="$no_proxy"
export FLWR_SUPEREXEC_TASK_POLL_INTERVAL="${FLWR_SUPEREXEC_TASK_POLL_INTERVAL:-0.1}"
{{ gpus }}mkdir -p "$state/empty"
# Flower's processes import packages from the folder that they start in before the run's own.
cd "$state/empty"
# Flower tries for ever without a reason, and hides one in a traceback: said here, in its log.
command -v python3 > /dev/null &&
    python3 - "${XSITE_SUPERLINK:-{{ host }}:{{ c.port }}}" {{ s.runtime_port }} <<'END'
import os, socket, sys

host, _, port = sys.argv[1].rpartition(":")
with socket.socket() as own:
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        own.bind(("127.0.0.1", int(sys.argv[2])))
    except OSError as error:
        sys.exit(
            f"xsite: the loopback's port {sys.argv[2]} cannot be used ({error.strerror}). "
            f"End what listens there (ss -ltnp), or have another runtime-port made."
        )
if not os.environ.get("https_proxy") and not os.environ.get("HTTPS_PROXY"):
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        print(
            f"xsite: {sys.argv[1]} cannot be reached ({error.strerror or error}). The node tries "
            "again and again; hospital-it.md says what to look at.",
            file=sys.stderr,
        )
END
exec flower-supernode --superlink "${XSITE_SUPERLINK:-{{ host }}:{{ c.port }}}" \
    --root-certificates "$here/ca.crt" --auth-supernode-private-key "$here/key" \
    --host 127.0.0.1 --port {{ s.runtime_port }} \
    --node-config "site=\"{{ s.name }}\" {{ data_dir }}state-dir=\"$state\" policy=\"$here/policy.toml\""
