"""The device that networks run on: which one, in what precision, and how its time and memory are measured."""
