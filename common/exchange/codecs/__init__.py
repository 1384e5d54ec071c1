"""How arrays travel."""
