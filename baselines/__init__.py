"""The methods that MSG U-Net is compared with; the registry imports each file in this package."""
