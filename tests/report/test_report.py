"""Tables, figures and page: the paper's numbers, intervals, escaping, half-finished suites."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from made import EVIL, fill, make_plan

from msgunet.cli.main import main
from msgunet.core.attempts import attempt
from msgunet.core.errors import OutOfMemory
from msgunet.core.table import Cell, Table
from msgunet.report.collect import Collection
from msgunet.report.figures import write_figures
from msgunet.report.figures.gradients import _rebin
from msgunet.report.page import write_page
from msgunet.report.published import published
from msgunet.report.reproduction import reproduction_table
from msgunet.report.tables import build_tables, write_tables
from msgunet.suite.plan import load_plan

HOSTILE = Table(
    "t",
    "a <script> & 50 % of $x_1$",
    ["M|ethod", "x"],
    [["<b>", Cell("1", 1.0, bold=True, shade=0.5)], ["[1] λ “é” 中", Cell("2", 2.0)]],
    ["note_1 # <i>"],
    "cmd",
)


def test_names_are_escaped():
    html = HOSTILE.html()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert "<strong>1</strong>" in html
    markdown = HOSTILE.markdown()
    assert r"M\|ethod" in markdown
    assert r"\<b>" in markdown
    assert "**1**" in markdown


def test_latex_escapes_and_is_booktabs():
    latex = HOSTILE.latex()
    assert r"50 \% of \$x\_1\$" in latex
    assert r"\textbf{1}" in latex
    assert [latex.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX installed")
def test_every_latex_table_compiles_as_it_is(working_folder):
    """With only the packages named in its second line."""
    plan = make_plan(working_folder)
    fill(plan)
    write_tables(plan.results / "settings" / "report.json", plan.results)
    long = Table("long", "over pages", ["a", "b"], [["x", Cell("1", 1.0)]] * 100, ["note"], "cmd")
    texts = [path.read_text() for path in plan.results.glob("tables/*.tex")] + [HOSTILE.latex(), long.latex()]
    assert len(texts) == 10
    groups = {}
    for text in texts:
        groups.setdefault(text.splitlines()[1].removeprefix("% Needs: "), []).append(text)
    for number, (packages, group) in enumerate(groups.items()):
        document = [r"\documentclass{article}", packages, r"\begin{document}", *group, r"\end{document}"]
        (working_folder / f"t{number}.tex").write_text("\n".join(document))
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"t{number}.tex"]
        done = subprocess.run(command, cwd=working_folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        assert not re.findall(r"Overfull .hbox .([0-9.]+)pt too wide. in paragraph", done.stdout)


def rows_of(html):
    """Return the cells of an HTML table's body, without the first column."""
    table = ElementTree.fromstring(re.search(r"<table.*?</table>", html, re.S)[0])
    return [row.findall("td") for row in table.find("tbody")]


def text_of(cell):
    return "".join(cell.itertext())


def numbers(text):
    """Return all numbers in a line of a table, without the format's markup."""
    return re.findall(r"[−+]?\d+(?:\.\d+)?(?:e[−+]\d+)?", text.replace("$-$", "−"))


def test_every_number_in_every_format_is_the_csvs(working_folder):
    plan = make_plan(working_folder)
    fill(plan)
    write_tables(plan.results / "settings" / "report.json", plan.results)
    write_page(plan.results / "settings" / "report.json", plan.results)
    page = (plan.results / "report" / "index.html").read_text()
    frames = {path.stem: pd.read_csv(path) for path in plan.results.glob("tables/*.csv")}
    compared = 0
    for name, kind in (("table1_bluemarble_full", "table1"), ("comparisons_bluemarble_full", "comparisons")):
        table = rows_of(page[page.index(f'id="table-{name}"') :])
        alone = rows_of((plan.results / "tables" / f"{name}.html").read_text())
        markdown = (plan.results / "tables" / f"{name}.md").read_text().splitlines()[4:]
        latex = (plan.results / "tables" / f"{name}.tex").read_text().split("\\midrule\n")[1].splitlines()
        frame = frames[kind][frames[kind]["protocol"] == name.split("_")[-1]]
        values = {f"{value:.8g}" for column in frame.select_dtypes("number") for value in frame[column]}
        for cells, same, line, tex in zip(table, alone, markdown, latex, strict=False):
            for cell in cells:
                if cell.get("data-sort"):
                    assert f"{float(cell.get('data-sort')):.8g}" in values
                    compared += 1
            values_in_html = [numbers(text_of(cell)) for cell in cells]
            assert values_in_html == [numbers(text_of(cell)) for cell in same]
            assert values_in_html == [numbers(cell) for cell in line.replace(r"\|", "").split("|")[2:-1]]
            assert values_in_html == [numbers(cell.replace("times", "")) for cell in re.split(r"(?<!\\)&", tex)[1:]]
    assert compared == 3 * 3 + 6
    summary = frames["table1"].set_index(["entry", "protocol"])
    first = rows_of((plan.results / "tables" / "table1_bluemarble_full.html").read_text())[1]
    row = summary.loc["msgunet", "full"]
    expected = f"{row['psnr']:.2f} [{row['psnr_low']:.2f}, {row['psnr_high']:.2f}]"
    assert text_of(first[1]) == expected


def test_a_suite_with_a_failed_method_still_has_a_full_report(working_folder):
    plan = make_plan(working_folder)
    fill(plan, without=("pix2pix",))
    run = plan.runs[0]
    with pytest.raises(OutOfMemory), attempt(run.folder, "train", run.settings):
        raise OutOfMemory("the card is full")
    settings = plan.results / "settings" / "report.json"
    write_tables(settings, plan.results)
    names = {figure["name"] for figure in write_figures(settings, plan.results)}
    page = write_page(settings, plan.results).read_text()
    frame = pd.read_csv(plan.results / "tables" / "table1.csv").set_index(["entry", "protocol"])
    assert frame.loc["pix2pix", "native"]["status"] == "out of memory"
    assert frame.loc["msgunet", "native"]["status"] == "done"
    assert page.count("out of memory") > 6
    assert "out of memory: the card is full" in page
    assert {"distributions_bluemarble", "images_bluemarble", "learning_bluemarble"} <= names
    # No files of an earlier state remain.
    assert {path.stem for path in (plan.results / "figures").glob("*.png")} == names


def test_several_seeds_and_data_sets_are_not_mixed(working_folder):
    sets = {
        name: {"kind": "bluemarble", "size": [128, 64], "options": {"overlap": k / 8}} for k, name in enumerate("xy")
    }
    plan = make_plan(working_folder, seeds=[0, 1], datasets=sets)
    fill(plan, without=("msgunet/0",))
    failed = next(run for run in plan.runs if run.settings.entry == "msgunet" and run.settings.dataset == "x")
    with contextlib.suppress(ValueError), attempt(failed.folder, "train", failed.settings):
        raise ValueError("no luck")
    settings = plan.results / "settings" / "report.json"
    write_tables(settings, plan.results)
    page = write_page(settings, plan.results)
    frame = pd.read_csv(plan.results / "tables" / "table1.csv").set_index(["dataset", "entry", "protocol"])
    assert frame.loc[("x", "msgunet", "full"), "status"] == "failed, 1 of 2 seeds done"
    assert frame.loc[("y", "msgunet", "full"), "status"] == "not yet, 1 of 2 seeds done"
    mean = [pd.read_csv(run.folder / "metrics.csv") for run in plan.runs if run.settings.entry == "pix2pix"]
    mean = [table[table["protocol"] == "full"]["psnr"].mean() for table in mean]
    assert frame.loc[("y", "pix2pix", "full"), "psnr"] == pytest.approx((mean[1] + mean[3]) / 2, rel=1e-6)
    data = json.loads((page.parent / "assets" / "images.js").read_text().removeprefix("window.suite = ")[:-2])
    assert [dataset["name"] for dataset in data] == ["x", "y"]
    assert [method["title"] for method in data[0]["methods"]] == [f"{EVIL}, seed 0", "MSG U-Net, seed 1"]
    assert [image["id"] for image in data[0]["images"]] == [f"{i:04d}" for i in range(4, 12)]
    first = pd.read_csv(plan.runs[0].folder / "metrics.csv").iloc[0]
    psnr = data[0]["images"][0]["values"][plan.runs[0].settings.entry]["native"]["psnr"]
    assert psnr == pytest.approx(first["psnr"], rel=1e-5)
    assert "MSG U-Net, seed 0: failed: ValueError: no luck (test_report.py:155)" in page.read_text()


def test_a_page_that_cannot_be_written_leaves_the_old_one(working_folder, monkeypatch):
    plan = make_plan(working_folder)
    fill(plan)
    settings = plan.results / "settings" / "report.json"
    page = write_page(settings, plan.results)
    before = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msgunet.report.page.write_images", full)
    with pytest.raises(OSError, match="No space"):
        write_page(settings, plan.results)
    assert {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()} == before
    assert not list(plan.results.glob(".tmp*"))


def test_only_tables_of_an_earlier_state_are_removed(working_folder):
    plan = make_plan(working_folder)
    fill(plan)
    folder = plan.results / "tables"
    (folder / "mine").mkdir(parents=True)
    for name in ("table1_gone_native.md", "notes.txt"):
        (folder / name).write_text("x")
    write_tables(plan.results / "settings" / "report.json", plan.results)
    assert not (folder / "table1_gone_native.md").exists()
    assert (folder / "notes.txt").exists()
    assert (folder / "mine").is_dir()


def test_a_report_on_a_suite_that_has_changed_is_refused(working_folder, capsys):
    plan = make_plan(working_folder)
    fill(plan)
    assert main(["report", "made.yaml"]) == 0
    assert "The page with the results so far: file:" in capsys.readouterr().out
    path = working_folder / "made.yaml"
    path.write_text(path.read_text().replace("decay_epochs: 1", "decay_epochs: 2"))
    load_plan.cache_clear()
    assert main(["report", "made.yaml"]) == 2
    assert "the suite has changed since it was run: 3 of its settings files" in capsys.readouterr().err


def test_prepared_images_can_be_deleted_after_the_evaluation(working_folder):
    plan = make_plan(working_folder)
    fill(plan)
    shutil.rmtree(plan.data[0].folder)
    settings = plan.results / "settings" / "report.json"
    write_tables(settings, plan.results)
    names = {figure["name"] for figure in write_figures(settings, plan.results)}
    assert "distributions_bluemarble" in names
    assert "images_bluemarble" not in names
    assert "No images" in write_page(settings, plan.results).read_text()


def test_costs_of_other_networks_are_left_out(working_folder):
    plan = make_plan(working_folder)
    fill(plan)
    networks = plan.networks.networks
    rows = [{"entry": n.entry, "settings": n.identity, "tflop": k} for k, n in enumerate(networks)]
    frame = pd.DataFrame([*rows, {"entry": "gone", "settings": "0" * 8, "tflop": 9}])
    frame.to_csv(plan.results / "cost.csv", index=False)
    collection = Collection(plan.results / "settings" / "report.json", plan.results)
    assert list(collection.cost()["tflop"]) == list(range(len(networks)))


def test_results_of_other_settings_are_left_out(working_folder):
    fill(make_plan(working_folder))
    plan = make_plan(working_folder, training={"epochs": 2, "decay_epochs": 1})
    tables = build_tables(Collection(plan.results / "settings" / "report.json", plan.results))
    status = tables.frames["table1"].set_index("entry")["status"]
    assert set(status[["pix2pix", "msgunet"]]) == {"not yet"}
    assert tables.frames["ablation"].empty


def test_the_paper_is_compared_number_by_number(working_folder):
    """In a suite with the paper's data set and sizes."""
    plan = make_plan(working_folder)
    fill(plan)
    collection = Collection(plan.results / "settings" / "report.json", plan.results)
    assert "no numbers" in reproduction_table(build_tables(collection).frames["reproduction"], collection).notes[0]
    collection.settings["datasets"]["bluemarble"]["kind"] = "maps"
    run = collection.runs[0]
    paper = published("table1").query("dataset == 'maps' and method == 'pix2pix'").iloc[0]
    size = (int(paper["width"]), int(paper["height"]))
    object.__setattr__(run.settings, "size", size)
    vars(run).pop("state", None)
    for name in ("training.json", "evaluation.json"):
        facts = json.loads((run.folder / name).read_text())
        (run.folder / name).write_text(json.dumps({**facts, "settings": run.settings.identity}))
    metrics = pd.read_csv(run.folder / "metrics.csv")
    metrics["psnr"] += paper["psnr"] - metrics["psnr"].mean()
    metrics["ssim"] = 0.999
    metrics.to_csv(run.folder / "metrics.csv", index=False)
    frame = build_tables(collection).frames["reproduction"].set_index("what")
    assert list(frame["paper"]) == [paper["psnr"], paper["ssim"], paper["vif"]]
    assert frame.loc[f"PSNR at {size[0]}×{size[1]}", "inside"] == "inside"
    ssim = frame.loc[f"SSIM at {size[0]}×{size[1]}"]
    assert (ssim["inside"], ssim["difference"]) == ("outside", pytest.approx(0.999 - paper["ssim"]))


def test_rebinning_keeps_the_mass():
    bins = pd.DataFrame({"low": [-2.0, 0.0, 1.0], "high": [-1.0, 1.0, 3.0], "count": [10, 20, 70]})
    share = _rebin(bins, np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0]))
    assert share.tolist() == pytest.approx([10, 0, 10, 10, 35, 35])


def test_the_report_imports_no_torch():
    modules = "msgunet.report.tables, msgunet.report.figures, msgunet.report.page, msgunet.report.show"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
