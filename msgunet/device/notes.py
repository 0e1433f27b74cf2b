"""Notes on the standard error output that are worth a line once, not once an image."""

import functools
import sys


@functools.cache
def say(text: str) -> None:
    """Print a line on the standard error output; the same line only once."""
    print(text, file=sys.stderr, flush=True)
