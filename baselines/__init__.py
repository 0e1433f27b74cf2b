"""The methods that MSG U-Net is compared with: one file each, found by the registry."""
