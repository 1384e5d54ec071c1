"""What every command of the terminal shares: options, progress, tables."""
