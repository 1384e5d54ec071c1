"""Networks, domain-specific batch normalisation and the projection head."""
