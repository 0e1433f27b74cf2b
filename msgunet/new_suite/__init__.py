"""A suite for a user's own images: what a folder holds, and the YAML file for it."""
