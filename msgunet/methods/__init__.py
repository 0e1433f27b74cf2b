"""What a method is, MSG U-Net itself, and what methods share: networks, losses, and generators on disk."""
