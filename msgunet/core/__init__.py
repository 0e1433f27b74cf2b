"""The lowest layer: settings, files, errors and records. It imports no other package of the project, and no torch."""
