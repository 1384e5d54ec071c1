"""What runs at a hospital: the Flower ClientApp, the private store, the reply."""
