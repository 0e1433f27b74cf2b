"""Lists in settings in which a repeated value makes no sense."""

from collections.abc import Sequence
from typing import Any

from pydantic import AfterValidator


def distinct(values: Sequence[Any]) -> Sequence[Any]:
    """Return a list without repeated values.

    Raises:
        ValueError: a value is listed twice.

    """
    for i, value in enumerate(values):
        # True is no second 1.
        if any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values[:i]):
            raise ValueError(f"{value} is listed twice")
    return values


# For the annotation of such a list.
DISTINCT = AfterValidator(distinct)
