"""What networks cost: operations, time and memory; and where the time goes."""
