"""Text from elsewhere (suites, servers, file names, file headers), shown literally: one function for each format.

HTML is escaped by Jinja and MarkupSafe, and figures switch off the mathematics of matplotlib.
"""

import re
import unicodedata

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
    '"': "''",
    "`": r"\textasciigrave{}",
    "“": "``",
    "”": "''",
    "’": "'",
    "×": r"$\times$",
    "–": r"\textendash{}",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "±": r"$\pm$",
}

# What Markdown would read as markup. An underscore inside a word is none, nor are brackets without a link.
_MARKUP = re.compile(
    r"""
    [*`|~<]                                     # emphasis, code, columns, strikethrough, HTML
    | \\(?=[!-/:-@\[-`{-~]|$)                   # an escape
    | (?<![^\W_])_ | _(?![^\W_])                # emphasis at the edge of a word
    | \](?=[(\[:])                              # a link
    | &(?=\#?\w+;)                              # an entity
    | ^(?:>|(?:\#+|\++|-+|\d{1,9}[.)])(?=\s|$))  # a heading, quotation or list
    """,
    re.VERBOSE,
)
# Characters that change the order of others; `isprintable` refuses them too, but also joiners that scripts need.
_REORDERING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}


def printable(text: str) -> str:
    """Return text whose control characters, except line breaks, are escaped: none can change the terminal."""
    return "".join(c if c == "\n" or not _is_control(c) else c.encode("unicode_escape").decode() for c in text)


def control_characters(text: str) -> list[str]:
    """Return the control characters in a text, line breaks among them, as code points with their names."""
    found = dict.fromkeys(c for c in text if _is_control(c))
    return [f"U+{ord(c):04X} ({_NAMES.get(c) or unicodedata.name(c, 'control character').lower()})" for c in found]


_NAMES = {"\n": "line break", "\r": "carriage return", "\t": "tab", "\x1b": "escape", "\0": "null"}


def _is_control(c: str) -> bool:
    return c in _REORDERING or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")


def markdown(text: str) -> str:
    """Return text for Markdown: a reader sees every character of it."""
    text = _MARKUP.sub(lambda match: f"{match[0][:-1]}\\{match[0][-1]}", text)
    # GitHub reads a dollar sign as mathematics, after a backslash too.
    return text.replace("$", "<span>$</span>")


def markdown_code(text: str) -> str:
    """Return text as code in Markdown."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def unescaped(text: str) -> str:
    """Undo `markdown`, for a terminal."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text.replace("<span>$</span>", "$"))


def latex(text: str) -> str:
    """Return text for LaTeX; a character that its usual fonts lack is replaced by its code point."""
    text = "".join(_LATEX.get(c) or _letter(c) for c in text).replace("--", "-{}-")
    # At the start of a row, LaTeX would read a bracket as an option of the preceding \\.
    return f"{{}}{text}" if text.startswith("[") else text


def _letter(c: str) -> str:
    if c < "\u0180":
        return c
    name = unicodedata.name(c, "").split()
    if name[:2] == ["GREEK", "SMALL"] and len(name) == 4:
        letter = {"LAMDA": "lambda", "OMICRON": "mathit{o}"}.get(name[3], name[3].lower())
        return f"$\\{letter}$"
    return f"[U+{ord(c):04X}]"


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of an error's message, printable and of limited length; its type if it has no message."""
    lines = str(error).splitlines()
    return printable(lines[0] if lines else type(error).__name__)[:limit]
