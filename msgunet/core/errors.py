"""Errors and interruptions that are shown without a traceback."""


class UserError(Exception):
    """One or more things wrong with what the user gave; all of them are said at once. Exit status 2."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class OutOfMemory(UserError):  # noqa: N818 (as everyone calls it)
    """The work does not fit into the memory there is."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had too little memory."""
    said = any(words in str(error) for words in ("out of memory", "can't allocate memory"))
    return isinstance(error, OutOfMemory | MemoryError) or (isinstance(error, RuntimeError) and said)


class InterruptedTraining(Exception):  # noqa: N818 (it is no error)
    """A signal arrived; the step in flight was finished and the state saved. Exit status 128 + `signal`."""

    def __init__(self, message: str, signal: int) -> None:
        self.signal = signal
        super().__init__(message)
