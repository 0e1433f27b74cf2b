"""Evaluation on the test images: the metrics of each image, and the resolution ablation."""
