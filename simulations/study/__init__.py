"""A study: methods × folds × seeds, one cell a run, and the paper-shaped report of them."""
