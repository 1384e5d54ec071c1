"""The configuration of a run: its keys, and where their values come from."""
