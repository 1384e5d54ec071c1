"""Attacks on a federation of one's own: what each gets, with the defences off and on."""
