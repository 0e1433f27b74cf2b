"""The base class of methods, MSG U-Net itself, shared networks and losses, and generators on disk."""
