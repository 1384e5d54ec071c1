"""A hospital that a trained network has never seen: what it is given, and how far to trust it."""
