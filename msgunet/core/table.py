"""A table as Markdown, LaTeX (booktabs) and HTML."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from msgunet.core.files import write_text
from msgunet.core.text import LATEX_T1, from_markdown, latex, markdown, markdown_code, one_line

# Lines per page of LaTeX; a longer table is split.
_LINES = 45
# Texts longer than this are wrapped in LaTeX, where a wide table is shrunk, to lines of at least so many characters.
_LONG, _SHORTEST_LINE = 28, 22
_EM = 0.55  # the width of a character


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: the printed text.
        value: the number behind the text, to sort by.
        bold: whether the text is printed in bold.
        shade: background shade from 0 (white) to 1 (darkest), if any.

    """

    text: str
    value: float | None = None
    bold: bool = False
    shade: float | None = None

    @property
    def colour(self) -> tuple[int, int, int] | None:
        """The shade as red, green and blue from 0 to 255. Black text on it is legible, in greyscale print too."""
        if self.shade is None:
            return None
        light, dark = (255, 255, 255), (110, 168, 214)
        return tuple(round(a + self.shade * (b - a)) for a, b in zip(light, dark, strict=True))


def number(value: Any, form: str, missing: str = "–", **how: Any) -> Cell:
    """Return a cell with a number in a format such as `.2f`, or with the text `missing` if it is None or NaN."""
    if value is None or math.isnan(value):
        return Cell(missing)
    return Cell(format(value, form).replace("-", "−"), float(value), **how)


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        name: the stem of its files' names.
        title: the heading or caption.
        columns: the column headings.
        rows: the cells; a plain text is a cell without a number.
        notes: the conditions, and anything else that a reader must know.
        command: the command that makes the table.
        caption: the caption in LaTeX, which numbers its tables itself; empty: the title.
        shades: the meaning of the cells' shades, for the formats that have them (not Markdown).

    """

    name: str
    title: str
    columns: list[str]
    rows: Sequence[Sequence[Cell | str]]
    notes: list[str]
    command: str
    caption: str = ""
    shades: str = ""

    @property
    def _all_notes(self) -> list[str]:
        """The notes of a format with shades."""
        return [*self.notes, self.shades] if self.shades else self.notes

    @functools.cached_property
    def cells(self) -> list[list[Cell]]:
        """The rows, with every cell as a `Cell`."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]

    @functools.cached_property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers, which are right-aligned."""
        return [any(row[j].value is not None for row in self.cells) for j in range(len(self.columns))]

    def markdown(self) -> str:
        """Return the table as GitHub Markdown with aligned columns."""
        lines = [[markdown(column) for column in self.columns]]
        lines += [[f"**{markdown(c.text)}**" if c.bold else markdown(c.text) for c in row] for row in self.cells]
        # Aligned as they are read, without the escapes.
        lengths = [[len(from_markdown(value)) for value in row] for row in lines]
        widths = [max(3, *(row[j] for row in lengths)) for j in range(len(self.columns))]

        def line(row: list[str], lengths: list[int]) -> str:
            spaces = [" " * (width - length) for width, length in zip(widths, lengths, strict=True)]
            columns = zip(spaces, row, self.numeric, strict=True)
            return "| " + " | ".join(s + v if numeric else v + s for s, v, numeric in columns) + " |"

        ends = [":" if numeric else "-" for numeric in self.numeric]
        rule = "|" + "|".join("-" * (w + 1) + end for w, end in zip(widths, ends, strict=True)) + "|"
        notes = [f"- {markdown(note)}" for note in self.notes]
        heading, *rows = map(line, lines, lengths)
        head = [f"### {markdown(self.title)}", "", heading, rule, *rows, ""]
        return "\n".join([*head, *notes, "", f"Made by {markdown_code(self.command)}", ""])

    def text(self) -> str:
        """Return the table for a terminal: the Markdown without its escapes."""
        return from_markdown(self.markdown())

    @functools.cached_property
    def _wrapped(self) -> list[int]:
        """The characters in a line of each column whose texts are wrapped in LaTeX; 0 for other columns."""
        columns = [[row[j].text for row in self.cells] for j in range(len(self.columns))]
        lines = [max((len(word) for text in texts for word in text.split()), default=0) for texts in columns]
        wraps = [any(len(text) > _LONG for text in texts) for texts in columns]
        return [
            max(_SHORTEST_LINE, line) if wrap and not numeric else 0
            for line, wrap, numeric in zip(lines, wraps, self.numeric, strict=True)
        ]

    def _page_starts(self) -> list[int]:
        """Return the first row of each page in LaTeX."""
        starts, lines = [], _LINES
        for i, row in enumerate(self.cells):
            wrapped = zip(row, self._wrapped, strict=True)
            height = max([1, *(math.ceil(len(cell.text) / line) for cell, line in wrapped if line)])
            if lines + height > _LINES:
                starts.append(i)
                lines = 0
            lines += height
        return starts

    def latex(self) -> str:
        """Return the table as LaTeX; a long one is continued in further tables, and long texts are wrapped.

        It needs the packages booktabs and graphicx, array for long texts, xcolor for shades, and fontenc for some
        letters.
        """

        def formatted(cell: Cell) -> str:
            colour = "" if cell.colour is None else rf"\cellcolor[RGB]{{{','.join(map(str, cell.colour))}}}"
            return colour + (rf"\textbf{{{latex(cell.text)}}}" if cell.bold else latex(cell.text))

        shaded = any(cell.colour for row in self.cells for cell in row)
        packages = [r"\usepackage{booktabs}", r"\usepackage{graphicx}"]
        packages += [r"\usepackage[table]{xcolor}"] if shaded else []
        packages += [r"\usepackage[T1]{fontenc}"] if LATEX_T1 & set(self.text()) else []
        packages += [r"\usepackage{array}"] if any(self._wrapped) else []
        columns = "".join(
            rf">{{\raggedright\arraybackslash}}p{{{_EM * line:.0f}em}}" if line else "r" if numeric else "l"
            for line, numeric in zip(self._wrapped, self.numeric, strict=True)
        )
        heading = [r"\toprule", " & ".join(map(latex, self.columns)) + r" \\", r"\midrule"]
        rows = [" & ".join(map(formatted, row)) + r" \\" for row in self.cells]
        sentences = (f"{note.rstrip('.')}." for note in self._all_notes)
        notes = r"\par\smallskip\raggedright\footnotesize " + " ".join(map(latex, sentences))
        # Shrink a table that is wider than the text; leave others as they are.
        fit = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
        small = [r"\footnotesize", r"\setlength{\tabcolsep}{3pt}", fit, rf"\begin{{tabular}}{{{columns}}}"]
        body = []
        starts = self._page_starts() or [0]
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            caption = rf"\caption{{{latex(self.caption or self.title)}{', continued' if start else ''}}}"
            last = [notes] if end == len(rows) else []
            label = [] if start else [rf"\label{{tab:{self.name}}}"]
            body += [r"\begin{table}", r"\centering", caption, *label, *small, *heading, *rows[start:end]]
            body += [r"\bottomrule", r"\end{tabular}}", *last, r"\end{table}"]
        head = [f"% Made by: {one_line(self.command)}", f"% Needs: {' '.join(packages)}"]
        return "\n".join([*head, *body, ""])

    def write(self, folder: Path) -> None:
        """Write the table to `folder` as Markdown, LaTeX and HTML."""
        write_text(folder / f"{self.name}.md", self.markdown())
        write_text(folder / f"{self.name}.tex", self.latex())
        write_text(folder / f"{self.name}.html", self.html_page())

    def html_page(self) -> str:
        """Return a standalone HTML page with the table."""
        return Markup(
            "<!doctype html><html lang='en'><meta charset='utf-8'>"
            "<meta name='viewport' content='width=device-width, initial-scale=1'><title>{}</title>"
            "<style>body {{ font-family: sans-serif }} th, td {{ padding: .2rem .6rem; text-align: left }} "
            ".scroll, pre {{ overflow-x: auto }} td.number {{ white-space: nowrap; text-align: right }}</style>"
            "<h1>{}</h1>{}</html>\n"
        ).format(self.title, self.title, self.html())

    def html(self) -> Markup:
        """Return the table as sortable HTML, with its notes and command; all text is escaped."""
        classes = [Markup(" class='number'") if numeric else "" for numeric in self.numeric]
        head = Markup("").join(
            Markup("<th scope='col'{}>{}</th>").format(*pair) for pair in zip(classes, self.columns, strict=True)
        )
        rows = []
        for row in self.cells:
            cells = []
            for j, cell in enumerate(row):
                content = Markup("<strong>{}</strong>").format(cell.text) if cell.bold else escape(cell.text)
                more = classes[j]
                if self.numeric[j]:
                    # With an empty sort key, a missing number comes last in either direction.
                    more += Markup(" data-sort='{}'").format("" if cell.value is None else f"{cell.value:.8g}")
                if cell.colour is not None:
                    more += Markup(" style='background:rgb({},{},{})'").format(*cell.colour)
                form = Markup("<td{}>{}</td>") if j else Markup("<th scope='row'{}>{}</th>")
                cells.append(form.format(more, content))
            rows.append(Markup("<tr>{}</tr>").format(Markup("").join(cells)))
        body = Markup("\n").join(rows)
        notes = Markup("").join(Markup("<li>{}</li>").format(note) for note in self._all_notes)
        return Markup(
            "<div class='scroll' tabindex='0' role='region' aria-label='{}'><table class='sortable n-last'>"
            "<thead><tr>{}</tr></thead><tbody>{}</tbody></table>"
            "</div><details><summary>Conditions</summary><ul>{}</ul></details><pre>{}</pre>"
        ).format(self.title, head, body, notes, self.command)
