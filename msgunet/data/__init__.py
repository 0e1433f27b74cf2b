"""Data sets: archives in, PNG pairs and a manifest out."""
