"""Text from elsewhere: servers, file names, file headers. None of it reaches a terminal as it came."""


def printable(text: str) -> str:
    """Return text whose control characters, except line breaks, are escaped: none can change the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of an error's message, printable and of limited length; its type if it has no message."""
    lines = str(error).splitlines()
    return printable(lines[0] if lines else type(error).__name__)[:limit]
