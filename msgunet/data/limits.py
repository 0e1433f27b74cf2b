"""The largest image that is read: in a data set a number of pixels, otherwise what fits into memory."""

import contextlib
import math
import os
from collections.abc import Iterator
from contextvars import ContextVar

from msgunet.core.errors import OutOfMemory, UserError

SETTING = "MSGUNET_MAX_MEGAPIXELS"
# Four times the largest images here, those of the globe (10800x5400). A larger one in an archive is more likely an
# attack.
_DEFAULT = 240.0

_memory: ContextVar[float | None] = ContextVar("_memory", default=None)


@contextlib.contextmanager
def limited_by_memory(available: float) -> Iterator[None]:
    """In this context, an image can have any size that fits into `available` bytes."""
    token = _memory.set(available)
    try:
        yield
    finally:
        _memory.reset(token)


def check_limit(limit: float, used: float, least: float) -> None:
    """Refuse a limit on the memory of this process that the process exceeds by itself; all in bytes.

    Args:
        limit: what the user allows.
        used: what the process takes now.
        least: what its smallest piece of work takes in addition.

    Raises:
        OutOfMemory: the limit is below `used`.

    """
    if limit < used:
        # Rounded up, with a tenth for a small image.
        gigabytes = math.ceil((used + least) / 1e8 + 1) / 10
        raise OutOfMemory(
            f"the memory limit of {_amount(limit)} (--memory) is below what this process takes by itself, "
            f"{_amount(used)}; allow at least {gigabytes:.1f} GB, and more for large images"
        )


def check_size(name: str, *shape: int, value_bytes: int) -> None:
    """Refuse an image by the values that its header claims, before memory is taken for them.

    Args:
        name: what the message calls the image.
        shape: width, height and so on, in the order of the header; their product is the number of values.
        value_bytes: the bytes that reading takes for each value.

    Raises:
        UserError: the image is larger than the limit of data sets, or in `limited_by_memory` than the memory.

    """
    claimed, values, available = "x".join(map(str, shape)), math.prod(shape), _memory.get()
    if available is not None:
        if values * value_bytes > available:
            raise UserError(
                f"{name}: its header claims {claimed} values; reading them needs {_amount(values * value_bytes)} of "
                f"memory, but {_amount(max(0, available))} are available"
            )
        return
    # In three channels.
    if values > 3e6 * (limit := _megapixels()):
        raise UserError(
            f"{name}: its header claims {claimed} values, more than {limit:g} megapixels, the limit for images of data "
            f"sets and archives; if the image is what you expect, set {SETTING}={math.ceil(values / 3e6)}"
        )


def _amount(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _megapixels() -> float:
    text = os.environ.get(SETTING, str(_DEFAULT))
    with contextlib.suppress(ValueError):
        if (value := float(text)) > 0:
            return value
    raise UserError(f"{SETTING}={text}: must be a number of megapixels above 0")
