"""The networks that turn an image into an embedding."""
