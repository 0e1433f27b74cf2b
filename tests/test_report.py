"""Tables, figures, page: the paper's numbers, intervals, escaping, half-finished suites."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from msgunet.published import published
from msgunet.report.figures import _rebin
from msgunet.report.render import Table
from msgunet.report.tables import bootstrap


def test_published_numbers_are_the_papers(shared):
    text = (shared / "paper" / "msg-unet.txt").read_text()
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in text.splitlines() if "\t" in line}
    for _, row in published("table1").iterrows():
        size = f"{row['width']} × {row['height']}"
        line = next(cells for key, cells in rows.items() if key.startswith(f"{row['title']} ({size})"))
        start = {"cityscapes": 0, "nyu": 3, "maps": 6}[row["dataset"]]
        assert [float(v) for v in line[start : start + 3]] == [row["psnr"], row["ssim"], row["vif"]]
    grids = pd.concat([published("table2"), published("table3")])
    assert len(grids) == 25 + 32
    for _, row in grids.iterrows():
        if row["dataset"] == "cityscapes":
            line = rows[f"{row['input_width']}×{row['input_height']}"]
            column = int(np.log2(row["output_width"] / 128))
        else:
            line = rows[str(row["input_width"])]
            column = int(np.log2(row["output_width"] / 64)) + (4 if row["dataset"] == "maps" else 0)
        assert float(line[column]) == row["ssim"]


def test_bootstrap_is_repeatable_and_covers_the_mean():
    draw = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        mean, low, high = bootstrap(draw.normal(5, 1, (1, 40)), 400)
        inside += low <= 5 <= high
        assert low <= mean <= high
    assert 0.88 < inside / 200 < 0.99
    values = draw.normal(size=(3, 20))
    assert bootstrap(values, 200) == bootstrap(values, 200)
    spread = [np.diff(bootstrap(v, 400)[1:])[0] for v in (values[:1], values + np.array([[-3], [0], [3]]))]
    assert spread[1] > spread[0], "seeds that differ widen the interval"


EVIL = Table("t", "a <script> & 50 % of $x_1$", ["M|ethod", "x"], [["<b>", "1"]], ["note_1 # <i>"], "cmd", {(0, 1)})


def test_names_are_escaped():
    html = EVIL.html()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert "<strong>1</strong>" in html
    markdown = EVIL.markdown()
    assert r"M\|ethod" in markdown
    assert "<b>" not in markdown
    assert "**1**" in markdown


def test_latex_escapes_and_is_booktabs():
    latex = EVIL.latex()
    assert r"50 \% of \$x\_1\$" in latex
    assert r"\textbf{1}" in latex
    assert [latex.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX installed")
def test_latex_compiles(tmp_path):
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + EVIL.latex() + "\\end{document}"
    (tmp_path / "t.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_rebinning_keeps_the_mass():
    bins = pd.DataFrame({"low": [-2.0, 0.0, 1.0], "high": [-1.0, 1.0, 3.0], "count": [10, 20, 70]})
    share = _rebin(bins, np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0]))
    assert share.tolist() == pytest.approx([10, 0, 10, 10, 35, 35])


def test_the_report_imports_no_torch():
    modules = "msgunet.report.tables, msgunet.report.figures, msgunet.report.page, msgunet.report.show"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
