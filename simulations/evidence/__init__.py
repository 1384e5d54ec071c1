"""Evidence about xsite itself, measured by programs that no command of `xsite` runs."""
