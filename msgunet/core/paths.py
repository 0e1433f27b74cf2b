"""Where published files are kept, below the working folder."""

from pathlib import Path

ARCHIVES = Path("data/archives")
WEIGHTS = Path("data/weights")
