"""Text from others, as each format shows it."""

import random
import shutil
import subprocess

import pytest
from made import EVIL
from readers import read_markdown

from msgunet.core.table import Cell, Table
from msgunet.core.text import control_problem, from_markdown, latex, markdown, markdown_code, printable

TRICKS = [
    EVIL,
    *("# x", "x #", "> x", "- x", "-", "---", "===", "+ x", "1. x", "12) x", "* * *", "~~x~~", "~~~", "    x", "[ ] x"),
    *(
        "[a](b)",
        "![a](b)",
        "[a]: b",
        "[^1]",
        "<b>x</b>",
        "<https://x.y>",
        "&lt;",
        "&#36;",
        "a\\",
        "\\|",
        "`",
        "``x`",
        "$",
    ),
    *("$5 or $6", "$$x$$", "https://x.org/a_b?c=*d*", "www.x_y.org", "a_b@c.org", ":smile:", "a  b", "20.1 [19, 21]"),
]


def seen(text: str) -> list[str]:
    """Return what a reader of Markdown sees of a text at each place where one can stand."""
    one = markdown(text)
    return read_markdown(f"### {one}\n\n| {one} | {one} |\n|---|---|\n| **{one}** | |\n\n- {one}\n\n{one}\n")


@pytest.mark.parametrize("text", TRICKS)
def test_markdown_shows_a_text_as_it_is(text):
    text = text.strip()
    assert seen(text) == [text] * 6
    assert from_markdown(markdown(text)) == text


def test_markdown_shows_random_marks_as_they_are():
    choose = random.Random(0)
    for _ in range(500):
        text = "".join(choose.choices("\\`*_{}[]<>()#+-.!|~$&;:'\"/=1a  x中", k=choose.randint(1, 9))).strip()
        if text:
            assert seen(text) == [text] * 6, text
            assert from_markdown(markdown(text)) == text


def test_what_only_github_reads_is_escaped_too():
    assert markdown("$x$") == "<span>$</span>x<span>$</span>"
    assert markdown("https://x.org") == r"https\://x.org"
    assert markdown("www.x.org") == r"www\.x.org"


@pytest.mark.parametrize("code", ["a b", "a `b` c", "``", "$x$ \\| *y*"])
def test_code_is_shown_as_it_is(code):
    assert read_markdown(markdown_code(code)) == [code]
    assert from_markdown(f"{markdown_code(code)} {markdown('*')}") == f"{markdown_code(code)} *"


def test_control_characters_cannot_change_a_terminal_or_a_line():
    assert printable("a\x1b[2J\nb\u202e") == "a\\x1b[2J\nb\\u202e"
    assert markdown("a\nb\x1b") == r"a\\nb\\x1b"
    assert latex("a\nb") == r"a\textbackslash{}nb"
    assert control_problem("Zoë’s 👩\u200d🔬 5\u00a0€ 中 ‏") is not None, "a mark of direction"
    assert control_problem("Zoë’s 👩\u200d🔬 5\u00a0€ 中") is None


def test_latex_shows_marks_as_they_are():
    assert latex(r"\frac{$") == r"\textbackslash{}frac\{\$"
    assert latex("a--b ''c,, `d`") == r"a-{}-b '{}'c,{}, \textasciigrave{}d\textasciigrave{}"
    assert (latex("[1]"), latex("*x")) == ("{}[1]", "{}*x")
    assert latex("λ ς ϡ 中 😀") == r"$\lambda$ $\varsigma$ [U+03E1] [U+4E2D] [U+1F600]"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX installed")
def test_all_of_latin_and_greek_compiles(tmp_path):
    letters = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA0, 0xAD), *range(0xAE, 0x180), *range(0x370, 0x400)]))
    texts = ["".join(letters[i : i + 8]) for i in range(0, len(letters), 8)]
    for name, rows in {"all": texts, "few": [text for text in texts if text.isascii()]}.items():
        table = Table(name, texts[0], ["a", "b"], [[text, Cell("1", 1.0)] for text in rows], rows, "cmd")
        source = table.latex()
        packages = source.splitlines()[1].removeprefix("% Needs: ")
        assert ("fontenc" in packages) == (name == "all")
        document = [r"\documentclass{article}", packages, r"\begin{document}", source, r"\end{document}"]
        (tmp_path / f"{name}.tex").write_text("\n".join(document))
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", f"{name}.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        assert "Missing character" not in (tmp_path / f"{name}.log").read_text(errors="replace")


def test_a_table_is_aligned_on_a_terminal_and_shows_its_texts():
    table = Table(
        "t", EVIL, ["a_b", "x"], [["a_b", Cell("1", 1.0, bold=True)], [EVIL, Cell("2", 2.0)]], ["*n*"], "c `d`"
    )
    head, _, first, rule, *rows, end, note, _, made, _ = table.text().split("\n")
    assert (head, note, made, end) == (f"### {EVIL}", "- *n*", "Made by `` c `d` ``", "")
    assert rows[1] == f"| {EVIL} |     2 |"
    assert {len(line) for line in (first, rule, *rows)} == {len(rows[1])}
