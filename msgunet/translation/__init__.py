"""A trained generator on new images: any size, whole folders, and export to ONNX."""
