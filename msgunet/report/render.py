"""A table as Markdown, LaTeX (booktabs) and HTML."""

from dataclasses import dataclass, field

from markupsafe import Markup, escape

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
    "×": r"$\times$",
    "–": "--",
    "→": r"$\rightarrow$",
    "±": r"$\pm$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
}


@dataclass(frozen=True)
class Table:
    """A table to be shown.

    name: of its files. columns: headings. rows: texts, in bold where `bold` holds (row, column). notes: conditions, and
    what a reader must know. command: what makes it.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]
    command: str
    bold: set[tuple[int, int]] = field(default_factory=set)

    def markdown(self) -> str:
        """GitHub's Markdown, columns lined up."""

        def text(value: str) -> str:
            return value.replace("|", r"\|").replace("<", "&lt;")

        cells = [[text(c) for c in self.columns]]
        for i, row in enumerate(self.rows):
            cells.append([f"**{text(v)}**" if (i, j) in self.bold else text(v) for j, v in enumerate(row)])
        widths = [max(3, *(len(row[j]) for row in cells)) for j in range(len(self.columns))]

        def line(row: list[str]) -> str:
            padded = (v.ljust(w) if j == 0 else v.rjust(w) for j, (v, w) in enumerate(zip(row, widths, strict=True)))
            return "| " + " | ".join(padded) + " |"

        rule = "|" + "|".join("-" * (w + 1) + ("-" if j == 0 else ":") for j, w in enumerate(widths)) + "|"
        notes = [f"- {text(note)}" for note in self.notes]
        head = [f"### {text(self.title)}", "", line(cells[0]), rule, *map(line, cells[1:]), ""]
        return "\n".join([*head, *notes, "", f"Made by `{self.command}`", ""])

    def latex(self) -> str:
        """A table environment that needs the package booktabs only."""

        def text(value: str) -> str:
            return "".join(_LATEX.get(c, c) for c in value)

        rows = []
        for i, row in enumerate(self.rows):
            shown = [rf"\textbf{{{text(v)}}}" if (i, j) in self.bold else text(v) for j, v in enumerate(row)]
            rows.append(" & ".join(shown) + r" \\")
        notes = " ".join(text(note.rstrip(".")) + "." for note in self.notes)
        return "\n".join(
            [
                f"% Made by: {self.command}",
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{text(self.title)}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}",
                r"\toprule",
                " & ".join(map(text, self.columns)) + r" \\",
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
                rf"\par\smallskip\footnotesize {notes}",
                r"\end{table}",
                "",
            ]
        )

    def html(self) -> Markup:
        """A figure element with table, notes and command; everything escaped."""
        head = Markup("").join(Markup("<th scope='col'>{}</th>").format(c) for c in self.columns)
        rows = []
        for i, row in enumerate(self.rows):
            cells = []
            for j, value in enumerate(row):
                shown = Markup("<strong>{}</strong>").format(value) if (i, j) in self.bold else escape(value)
                cell = Markup("<td>{}</td>") if j else Markup("<th scope='row'>{}</th>")
                cells.append(cell.format(shown))
            rows.append(Markup("<tr>{}</tr>").format(Markup("").join(cells)))
        body = Markup("\n").join(rows)
        notes = Markup("").join(Markup("<li>{}</li>").format(note) for note in self.notes)
        return Markup(
            "<div class='scroll'><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
            "<details><summary>Conditions</summary><ul>{}</ul></details><pre>{}</pre>"
        ).format(head, body, notes, self.command)
