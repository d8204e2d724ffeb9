"""What happens to run folders: train, add, update, remove, compare."""
