"""Test images translated and measured: one row per image, and the resolution ablation."""
