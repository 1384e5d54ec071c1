"""What happens when a process of a deployment is killed."""
