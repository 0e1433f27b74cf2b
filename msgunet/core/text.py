"""Text that others write: titles in a suite, servers' answers, file names. Each format shows it as it was written.

Markdown and LaTeX have their functions here. HTML is escaped by markupsafe, and matplotlib reads no markup at all
(`text.parse_math`).
"""

import re
import unicodedata
from collections.abc import Sequence

# Lines of one kind that are printed; the others are counted.
LISTED = 5
# Letters of some scripts and parts of some emoji are joined by these two.
_JOINERS = "\u200c\u200d"
_NAMES = {"\n": "line break", "\r": "carriage return", "\t": "tab", "\0": "NUL", "\x1b": "ESC"}


def _is_control(c: str) -> bool:
    """Return whether a character is not seen but changes what is: line breaks, escapes, the direction of text."""
    return unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in _JOINERS


def control_problem(text: str) -> str | None:
    """Return which control characters a text holds, as a sentence; None if it holds none."""
    found = dict.fromkeys(c for c in text if _is_control(c))
    if not found:
        return None
    names = {c: _NAMES.get(c) or unicodedata.name(c, "") for c in found}
    listed = ", ".join(f"U+{ord(c):04X}" + (name and f" ({name})") for c, name in names.items())
    return f"a text is one line without control characters, but {text!r} holds {listed}; remove it"


def printable(text: str) -> str:
    """Return text whose control characters, except line breaks, are escaped: none can change the terminal."""
    return "".join(c.encode("unicode_escape").decode() if _is_control(c) and c != "\n" else c for c in text)


def first_of(lines: Sequence[str], most: int) -> list[str]:
    """Return the first `most` lines, and how many more there are."""
    return [*lines[:most], *([f"and {len(lines) - most} more"] if len(lines) > most else [])]


def one_line(text: str) -> str:
    """Return text on one line, with all its control characters escaped."""
    return printable(text).replace("\n", r"\n")


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of an error's message, printable and of limited length; its type if it has no message."""
    lines = str(error).splitlines()
    return printable(lines[0] if lines else type(error).__name__)[:limit]


_MARKUP = re.compile(
    r"[\\`*_<&|~#]"
    r"|\](?=\()"  # a link
    r"|:(?=//)|(?<=www)\."  # an address, which GitHub makes a link: it would show the backslashes in it
    r"|^[\[>=]|^[+-](?=[\s-]|$)"  # a task, a quotation, an underline, a list
)
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")


def markdown(text: str) -> str:
    """Escape a text for GitHub's Markdown: a table's cell, or a whole heading, list item or paragraph."""
    text = _NUMBERED.sub(r"\1\\\2", _MARKUP.sub(r"\\\g<0>", one_line(text.strip())))
    # GitHub reads dollar signs as mathematics, even after a backslash; this is how its manual writes one.
    return text.replace("$", "<span>$</span>")


def markdown_code(text: str) -> str:
    """Return a text as code in Markdown."""
    text = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


_ESCAPED = re.compile(r"\\([!-/:-@[-`{-~])|<span>(\$)</span>|((`+).+?(?<!`)\4(?!`))")


def from_markdown(text: str) -> str:
    """Undo `markdown`, to show on a terminal what a reader of the Markdown sees; code is left as it is."""
    return _ESCAPED.sub(lambda match: match[1] or match[2] or match[3], text)


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",
    "“": "``",
    "”": "''",
    "’": "'",
    "×": r"$\times$",
    "–": "--",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
}
# Letters that need the package fontenc with the option T1, and those below U+0180 that LaTeX's usual fonts lack.
LATEX_T1 = frozenset("«»ÐÞðþĄąĐđĘęĮįŊŋŲų")
_LATEX_LACKS = frozenset("ĦħĸĿŀŉŦŧſ")
# LaTeX would join two of these to another character.
_LIGATURES = re.compile(r"([-',])(?=\1)")


def latex(text: str) -> str:
    """Escape a text for LaTeX; a character that its usual fonts lack is replaced by its code point."""
    text = "".join(_LATEX.get(c) or _latex_letter(c) for c in _LIGATURES.sub("\\1\u200c", one_line(text)))
    # At the start of a row, LaTeX would read a bracket or a star as an option of the preceding \\.
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def _latex_letter(c: str) -> str:
    if c < "\u0180" and c not in _LATEX_LACKS:
        return c
    if c in _JOINERS:
        return "{}"
    if "α" <= c <= "ω":
        name = unicodedata.name(c).removeprefix("GREEK SMALL LETTER ").lower()
        letter = {"lamda": "lambda", "omicron": "mathit{o}", "final sigma": "varsigma"}.get(name, name)
        return f"$\\{letter}$"
    return f"[U+{ord(c):04X}]"


def limited(lines: Sequence[str], what: str) -> list[str]:
    """Return the first lines, and the number of the others; `what` they are, in the plural."""
    more = len(lines) - LISTED
    return [*lines[:LISTED], *([f"and {more} more {what}"] if more > 0 else [])]
