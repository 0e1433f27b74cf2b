"""One nasty title through every format: a reader sees its characters, no more and no less."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import made_once
from made import EVIL, fill, make_plan
from markdown_it import MarkdownIt
from matplotlib import pyplot as plt
from suites import plan_of, problems_of

from msgunet.cli.main import main
from msgunet.core.table import Table
from msgunet.core.text import latex, markdown, markdown_code, printable, unescaped
from msgunet.methods.method_file import trust
from msgunet.methods.registry import custom_methods
from msgunet.report.figures import write_figures
from msgunet.report.figures.style import plain_powers
from msgunet.report.page import write_page
from msgunet.report.tables import write_tables

TITLES = [
    *(EVIL, "_a_", "__init__", "a_b_c", "# x", "## x", "- x", "+ x", "> x", "1. x", "12) x", "x\\", "**", "~~x~~", "$"),
    *("[a](b)", "[a][b]", "[a]: b", "<b>", "&lt;", "& and &#38;", "`", "``x``", "a|b", "!", "![a](b)", "\\*x*", "--"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A folder in which the whole report of a suite with nasty texts was made."""

    def make(folder: Path) -> None:
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            plan = make_plan(folder)
            fill(plan)
            settings = plan.results / "settings" / "report.json"
            write_tables(settings, plan.results)
            write_figures(settings, plan.results)
            write_page(settings, plan.results)

    return made_once(tmp_path_factory, "nasty", make)


def rendered(text: str) -> str:
    """What a reader of Markdown sees."""
    shown = MarkdownIt("gfm-like", {"linkify": False}).enable("table").render(text)
    return html.unescape(re.sub(r"<[^>]+>", "", shown))


@pytest.mark.parametrize("title", TITLES)
def test_markdown_shows_every_character(title):
    assert rendered(f"- {markdown(title)}").strip() == title
    assert unescaped(markdown(title)) == title
    table = Table("t", title, [title, "b"], [[title, "1"]], [title], "cmd").markdown()
    assert rendered(table).count(title) == 4
    assert "$" not in table.replace("<span>$</span>", ""), "GitHub reads it as mathematics"


def test_every_markdown_file_of_the_report_shows_it(report):
    files = list(report.glob("results/made/tables/table1_*.md"))
    assert len(files) == 2
    for file in files:
        assert EVIL in rendered(file.read_text()), file


def test_the_terminal_and_the_shared_readme_show_it(report, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(report)
    for verb in ("show", "status", "plan"):
        assert main([verb, "made.yaml"]) == 0
        assert EVIL in capsys.readouterr().out, verb
    assert main(["share", "made.yaml", "--out", str(tmp_path / "shared")]) == 0
    assert f"# {EVIL}" in rendered((tmp_path / "shared" / "README.md").read_text())
    assert "\x1b" not in printable("\x1b[31m")


def test_html_shows_it(report):
    page = (report / "results/made/report/index.html").read_text()
    assert "<script>alert" not in page
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert f"# {EVIL}" in text
    assert text.count(EVIL) > 3


def test_figures_show_it_literally(report, monkeypatch):
    assert len(list(report.glob("results/made/figures/*.png"))) == 4
    monkeypatch.chdir(report)
    from msgunet.report.collect import Collection
    from msgunet.report.figures import _set_look, training

    _set_look()
    collection = Collection(Path("results/made/settings/report.json"), Path("results/made"))
    (drawn,) = training.draw(collection, None)
    labels = [text.get_text() for legend in drawn.figure.legends for text in legend.get_texts()]
    labels += [text.get_text() for axes in drawn.figure.axes if axes.legend_ for text in axes.legend_.get_texts()]
    assert EVIL in labels
    assert not any(text.get_parse_math() for text in drawn.figure.findobj(plt.Text))
    plt.close(drawn.figure)


def test_powers_of_ten_need_no_mathematics():
    figure, axes = plt.subplots()
    axes.plot([1e-3, 1e3], [1e-8, 3e-8])
    axes.set(xscale="log", yscale="log")
    plain_powers(axes)
    figure.draw_without_rendering()
    labels = {label.get_text() for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels(which="both")}
    plt.close(figure)
    assert {"10⁻³", "10³", "2×10⁻⁸"} <= labels
    assert not any(set(label) & set("${}\\") for label in labels)


@pytest.mark.skipif(shutil.which("pdflatex") is None or shutil.which("pdftotext") is None, reason="no TeX or poppler")
def test_latex_shows_it(tmp_path):
    document = [r"\documentclass{article}", r"\begin{document}"]
    document += [rf"START{latex(EVIL.replace(' ', ''))}END", r"\end{document}"]
    (tmp_path / "t.tex").write_text("\n".join(document))
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)
    text = subprocess.run(["pdftotext", "t.pdf", "-"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    found = re.search("START(.*)END", "".join(text.split()))[1]
    # The usual fonts draw an underscore as a line, and call a tilde and a quotation mark by other names.
    assert found.translate(str.maketrans("”’˜", "\"'~")) == EVIL.replace(" ", "").replace("_", "")


@pytest.mark.parametrize("text", ["a", "`", "a``b", "`a`"])
def test_code_in_markdown(text):
    assert rendered(markdown_code(text)).strip() == text


@pytest.mark.parametrize("character", ["\n", "\t", "\x1b", "\0", "\u202e", "\u2028", "\x7f", "\x9b"])
@pytest.mark.parametrize("key", ["description", "methods.pix2pix.title"])
def test_control_characters_are_refused(tmp_path, key, character):
    text = f"a{character}b"
    suite = {"datasets": {"bluemarble": {"size": [64, 64]}}, "methods": {"pix2pix": {}, "mean": {}}}
    if key == "description":
        suite["description"] = text
    else:
        suite["methods"]["pix2pix"]["title"] = text
    (problem,) = problems_of(tmp_path, suite)
    assert f"{key}: Value error, the text has the control character U+{ord(character):04X} (" in problem
    assert character not in problem


def test_a_folded_description_is_stripped_and_joiners_stay(tmp_path):
    title = "क्‍ष 👩‍🔬"
    suite = "description: >\n  one\n  two\ndatasets: {bluemarble: {size: [64, 64]}}\nmethods: {mean: {title: TITLE}}"
    plan = plan_of(tmp_path, suite.replace("TITLE", title))
    assert plan.suite.description == "one two"
    assert plan.titles == {"mean": title}


def test_the_title_of_a_custom_method_is_checked_too(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        'from msgunet import Method, register_method\n\n\n@register_method("mine")\n'
        'class Mine(Method):\n    title = "two\\nlines"\n'
    )
    trust(file)
    with pytest.raises(Exception, match=r"the title of 'mine' has the control character U\+000A \(line break\)"):
        custom_methods(str(file))
