"""Errors and interruptions that are reported without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """One or more problems with the user's input, all reported together. Exit status 2.

    Attributes:
        problems: one line each.
        trace: a traceback of the user's own code, printed after the problems.

    """

    def __init__(self, *problems: str, trace: str = "") -> None:
        self.problems = problems
        self.trace = trace
        super().__init__("\n".join(problems))


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Add the problems of a `UserError` to a list, each once, so that all that is wrong can be said together."""
    try:
        yield
    except UserError as error:
        problems += [problem for problem in error.problems if problem not in problems]


class OutOfMemory(UserError):  # noqa: N818 (the usual name)
    """The work does not fit into the available memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the GPU or the machine ran out of memory."""
    matches = any(text in str(error) for text in ("out of memory", "can't allocate memory"))
    return isinstance(error, OutOfMemory | MemoryError) or (isinstance(error, RuntimeError) and matches)


class InterruptedTraining(Exception):  # noqa: N818 (not an error)
    """A signal stopped the training after the current step, and its state was saved. Exit status 128 + `signal`."""

    def __init__(self, message: str, signal: int) -> None:
        self.signal = signal
        super().__init__(message)
