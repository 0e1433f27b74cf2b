"""Use a trained generator: translate images of any size and whole folders, and export to ONNX."""
