"""Read tables of results as data frames."""

from pathlib import Path

import pandas as pd

# A hash such as 1234567 or 12345e10, an id such as 0001 and an entry named 'nan' are no numbers.
_TEXT = ("id", "dataset", "entry", "commit", "settings", "prediction_sha256")


def read_frame(path: Path | str) -> pd.DataFrame:
    """Read a CSV file of results. Names and hashes are texts, even where they look like numbers or missing values."""
    frame = pd.read_csv(path)
    # With converters, a column of only "nan" would still become numbers.
    texts = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=lambda column: column in _TEXT)
    return frame.assign(**{column: texts[column] for column in texts})
