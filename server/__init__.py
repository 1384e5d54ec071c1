"""What runs at the coordinator: the Flower ServerApp, the strategy, the checkpoints."""
