"""A suite: its file, its runs, what they need, what they will take, and where they are."""
