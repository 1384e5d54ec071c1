"""How numbers, tables, JSON and pages are written for a reader, and read back."""
