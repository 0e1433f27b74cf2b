"""Measuring: images, the resolution ablation, gradients, and cost."""
