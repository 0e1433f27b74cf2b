"""Training: one loop for all methods, checkpoints that survive, and a history."""
