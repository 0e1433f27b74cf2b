"""Data sets: published archives or a user's folders in, PNG pairs and a manifest out."""
