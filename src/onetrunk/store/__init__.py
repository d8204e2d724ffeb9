"""Files and folders that are complete or absent: atomic writes, tensors, checkpoints, runs."""
