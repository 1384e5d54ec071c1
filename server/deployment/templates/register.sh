#!/bin/sh
# Makes the hospitals' keys known to the SuperLink, which must be running. Once; again for a new one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
state=${XSITE_STATE:-{{ c.state_dir }}}
export PATH="${XSITE_PROGRAMS:-{{ c.programs }}}:$PATH"
export FLWR_HOME="$state/flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 PYTHONUTF8=1
# It calls this machine alone, to which no proxy leads.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
export no_proxy=127.0.0.1,localhost,::1 NO_PROXY=127.0.0.1,localhost,::1
mkdir -p "$FLWR_HOME"
cat > "$FLWR_HOME/config.toml" <<END
[superlink]
default = "{{ c.name }}"
[superlink.{{ c.name }}]
address = "127.0.0.1:{{ c.superlink_port }}"
root-certificates = "$here/ca.crt"
END
for key in "$here"/keys/*.pub; do
    name=$(basename "$key" .pub)
    flwr supernode register "$key" {{ c.name }} --name "$name" || echo "$name: not registered (is it already?)" >&2
done
