"""What xsite is compared with: the table of methods, and the terms that they add to a loss."""
