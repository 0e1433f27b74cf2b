"""Write a suite for a user's own images: inspect their folder, then write the YAML file."""
