"""One training loop: objective, prototypes, optimiser, schedule, evaluation."""
