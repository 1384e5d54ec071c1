"""What is learnt of an image, and the figures that say how well."""
