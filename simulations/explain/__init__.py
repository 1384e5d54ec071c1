"""What a network looks at: activation maps and projections."""
