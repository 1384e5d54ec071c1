"""What xsite costs on this machine: speed of training, cost of a federated round."""
