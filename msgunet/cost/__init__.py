"""The cost of networks: operations, time and memory, and where the time goes."""
