"""MSG U-Net and the benchmark for high-resolution paired image-to-image translation around it."""

__version__ = "0.1.0"
