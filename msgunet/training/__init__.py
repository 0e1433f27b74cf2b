"""Training: one loop for all methods, checkpoints that survive interruptions, and a history."""
