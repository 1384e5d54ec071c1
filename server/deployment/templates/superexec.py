#!{{ s.programs }}/python -P
"""Flower's `flower-superexec` starts a process for every message. This one stands in front of it.

It has what such a process needs loaded beforehand, so that a round begins some seconds earlier.
"""

from clients.flower_host.prefork import main

main()
