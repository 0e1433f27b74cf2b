"""The device that networks run on: its choice, its precision, and how time and memory are measured on it."""
