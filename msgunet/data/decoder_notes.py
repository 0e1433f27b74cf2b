"""What decoders say about an image without naming its file: said once for each kind. Does not import torch."""

import contextlib
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from msgunet.core.text import printable

# The texts about the file that this thread is reading.
_reading: ContextVar[list[str] | None] = ContextVar("_reading", default=None)
# By kind, the texts by file. The threads that read do not inherit the context of the one that collects.
_collected: dict[str, dict[str, str]] | None = None


@contextlib.contextmanager
def collected_notes() -> Iterator[None]:
    """Print at the end of this context, once for each kind, what decoders said, with the first file and the number.

    Without this context, these are warnings of Python. It is for the main thread; its files can be read in others.
    """
    global _collected
    outer, _collected = _collected, {}
    with warnings.catch_warnings():
        for category in (UserWarning, RuntimeWarning):
            # Python would show each only once, and so hide how many there are.
            warnings.filterwarnings("always", category=category, module=r"PIL\.")
        show = warnings.showwarning

        def showwarning(message: Warning | str, *args: Any, **options: Any) -> None:
            if (texts := _reading.get()) is None:
                show(message, *args, **options)
            else:
                texts.append(str(message))

        warnings.showwarning = showwarning
        try:
            yield
        finally:
            found, _collected = _collected, outer
            for line in _lines(found):
                print(printable(line), file=sys.stderr)


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """In this context, what decoders say is about the file `name`. If reading fails, the error says enough."""
    token = _reading.set(texts := [])
    try:
        yield
    finally:
        _reading.reset(token)
    for text in texts:
        line = " ".join(text.split())
        if _collected is None:
            warnings.warn(f"{name}: {line}", stacklevel=4)
        else:
            # The same message about two files differs in numbers, such as places in the file.
            _collected.setdefault(re.sub(r"[0-9]+", "", line), {}).setdefault(name, line)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """In this context, what decoders say is dropped: the file will be read again."""
    token = _reading.set([])
    try:
        yield
    finally:
        _reading.reset(token)


def note(text: str) -> None:
    """Say something about the file that this thread is reading, as a decoder does."""
    if (texts := _reading.get()) is not None:
        texts.append(text)


def _take_log(record: logging.LogRecord) -> bool:
    """Take what a decoder logs about the file that is being read, instead of logging it."""
    if record.levelno < logging.WARNING or _reading.get() is None:
        return True
    note(record.getMessage())
    return False


for _decoder in ("PIL.TiffImagePlugin", "imagecodecs", "tifffile"):
    logging.getLogger(_decoder).addFilter(_take_log)


def _lines(found: dict[str, dict[str, str]]) -> Iterator[str]:
    # Several threads find the kinds in any order.
    for texts in sorted(found.values(), key=lambda texts: min(texts.items())):
        first = min(texts)
        others = f" (and {len(texts) - 1} other files)" if len(texts) > 2 else " (and 1 other file)"
        yield f"{first}{others if len(texts) > 1 else ''}: {texts[first]}"
