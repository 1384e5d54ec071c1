"""Experiments on one machine and the ``xsite`` command."""
