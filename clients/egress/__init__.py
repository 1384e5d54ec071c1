"""What may leave a hospital: policy, noise, budget, gate, ledger."""
