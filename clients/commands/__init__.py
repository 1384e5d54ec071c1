"""The commands of a hospital."""
