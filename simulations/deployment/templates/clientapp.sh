#!/bin/sh
# Flower starts `flwr-clientapp` to answer a message. This one stands in front of Flower's own and
# runs the xsite that is installed here, and no other code, whatever the coordinator sends.
exec "${XSITE_PROGRAMS:-{{ s.programs }}}/python" -P -m clients.reviewed "$@"
