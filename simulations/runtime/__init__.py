"""What carries a federated run out on one machine or over a consortium."""
