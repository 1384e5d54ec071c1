"""What server and sites send each other."""
