"""Ground floor: settings, files, errors and records. Stands on nothing else of the project, and imports no torch."""
