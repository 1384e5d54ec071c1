#!{{ s.programs }}/python -P
"""Flower starts `flwr-clientapp` to answer a message. This one stands in front of Flower's own.

It runs the xsite that is installed here and no other code, whatever the coordinator sends.
"""

from clients.flower_host.installed_code import main

main()
