"""Errors that a user can cause: shown without a traceback, exit status 2."""


class UserError(Exception):
    """One or more things wrong with what the user gave; all of them are said at once."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))
