"""A title and a description with the markup of every format: a reader of each sees them as they were written."""

import io
import json
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import docutils.core
import jinja2
import matplotlib as mpl
import pandas as pd
import pytest
import torch
from conftest import ROOT
from made import EVIL, EVIL_DESCRIPTION, fill, make_plan
from readers import read_html, read_markdown
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from msgunet.cli.main import main
from msgunet.data.sets.bluemarble import BlueMarble
from msgunet.methods.generator import load_generator
from msgunet.methods.msgunet import MSGUNetMethod
from msgunet.report import figures
from msgunet.report.figures.style import plain_powers
from msgunet.report.model_card import model_card
from msgunet.training.progress import History, Progress


@pytest.fixture(scope="module")
def titled(tmp_path_factory):
    """The folder of a suite with the nasty title and its report, and the texts of each figure, drawn as SVG."""
    folder, texts, save = tmp_path_factory.mktemp("titled"), {}, figures._save

    def draw(drawn, place):
        save(drawn, place)
        svg = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none"}):
            drawn.figure.savefig(svg, format="svg")
        elements = ElementTree.fromstring(svg.getvalue()).iter("{http://www.w3.org/2000/svg}text")
        texts[drawn.name] = ["".join(element.itertext()) for element in elements]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(figures, "_save", draw)
        # The title of a data set reaches conditions and captions.
        patch.setattr(BlueMarble, "title", EVIL)
        plan = make_plan(folder)
        fill(plan)
        write_cost(plan)
        assert main(["report", "made.yaml"]) == 0
        assert main(["share", "made.yaml", "--out", "shared"]) == 0
    return folder, texts


def write_cost(plan):
    """Write a cost for every network, as `msgunet cost` does."""
    same = {"parameters": 9, "gmac": 1.0, "gmac_fvcore": 1.0, "paper_tflop": None, "repeats": 3, "memory_kind": "m"}
    same |= {"fvcore_skipped": "", "device": "a processor", "device_type": "cpu", "threads": 1, "versions": "v"}
    same |= {"latency_q25_ms": 2.0, "latency_q75_ms": 4.0, "commit": "0" * 12}
    rows = [
        {"entry": n.entry, "part": n.part, "width": n.size[0], "height": n.size[1], "used": n.used, **same}
        | {"settings": n.identity, "tflop": 0.1 * (i + 1), "latency_ms": 3.0 + i, "peak_memory_mib": 100.0 + i}
        for i, n in enumerate(plan.networks.networks)
    ]
    pd.DataFrame(rows).to_csv(plan.results / "cost.csv", index=False)


def test_figures(titled):
    folder, texts = titled
    places = {"distributions_bluemarble": EVIL, "learning_bluemarble": EVIL, "images_bluemarble": EVIL}
    places |= {"quality_cost_bluemarble": EVIL, "cost_by_size": EVIL}
    assert texts.keys() == {*places, "ablation_bluemarble_msgunet"}
    for name, title in places.items():
        # Long titles are broken into lines.
        assert "".join(title.split()) in "".join("".join(texts[name]).split()), name
    captions = " ".join(" ".join(texts["learning_bluemarble"]).split())
    assert f"{EVIL} at 128×64" in captions
    assert "All methods: 1 + 1 epochs" in captions
    assert f"{EVIL}: decaying from" in captions
    for figure in json.loads((folder / "results/made/figures/figures.json").read_text()):
        for suffix in ("pdf", "png"):
            assert (folder / "results/made/figures" / f"{figure['name']}.{suffix}").stat().st_size > 5000


def test_logarithmic_axes_have_powers_of_ten_all_the_same():
    figures._set_look()
    figure, (wide, narrow) = mpl.pyplot.subplots(2)
    wide.plot([1, 1e-3, 1e6])
    narrow.plot([2, 7])
    for axes in (wide, narrow):
        axes.set_yscale("log")
    colours = figure.colorbar(mpl.cm.ScalarMappable(mpl.colors.LogNorm(1e-4, 1e2)), ax=wide)
    plain_powers(figure)
    figure.draw_without_rendering()
    found = [
        [text for label in axes.yaxis.get_ticklabels(which="both") if (text := label.get_text())]
        for axes in (wide, narrow, colours.ax)
    ]
    mpl.pyplot.close(figure)
    assert {"10⁻²", "10⁰", "10⁶"} <= set(found[0])
    assert {"2×10⁰", "3×10⁰", "6×10⁰"} <= set(found[1])
    assert {"10⁻⁴", "10²"} <= set(found[2])
    assert not [text for texts in found for text in texts if "$" in text]


def test_markdown(titled):
    folder, _ = titled
    seen = {path.stem: read_markdown(path.read_text()) for path in folder.glob("results/made/tables/*.md")}
    for name in ("table1_bluemarble_native", "table1_bluemarble_full", "cost"):
        assert EVIL in seen[name], name
    notes = seen["table1_bluemarble_native"]
    assert any(note.startswith(f"{EVIL} at 128×64, 8-bit RGB: 4 training") for note in notes)
    assert any(note.startswith(f"{EVIL}: 1 + 1 epochs, batch 1") for note in notes)
    assert f"MSG U-Net is better than {EVIL}" in seen["claims"]
    assert f"{EVIL} − MSG U-Net" in seen["comparisons_bluemarble_full"]
    # Each table has as many cells in every row as it has columns.
    rows = [line for line in (folder / "results/made/tables/cost.md").read_text().splitlines() if line.startswith("|")]
    assert len({len(re.split(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_the_readme_of_shared_results(titled):
    seen = read_markdown((titled[0] / "shared" / "README.md").read_text())
    assert seen[:2] == ["Results of the suite 'made'", EVIL_DESCRIPTION]
    assert any(text.startswith(f"{EVIL} at 128×64") for text in seen)


def test_a_model_card(titled, monkeypatch):
    folder, _ = titled
    monkeypatch.chdir(folder)
    monkeypatch.setattr(MSGUNetMethod, "title", EVIL)
    path = ROOT / "tests" / "fixtures" / "25f1304" / "generator.safetensors"
    generator = load_generator(path, "cpu")
    card = model_card(generator, path, folder / 'my "$x$ `model`.onnx', [])
    seen = read_markdown(card)
    assert seen[0] == f"{EVIL}, trained on {generator.settings.dataset}"
    assert seen[seen.index("method") + 1].startswith(EVIL)
    assert any(text.startswith('The input of my "$x$ `model`.onnx is source') for text in seen)
    assert r'InferenceSession("my \"$x$ `model`.onnx")' in card


def test_html(titled):
    folder, _ = titled
    for path in folder.glob("results/made/tables/table1_*.html"):
        assert EVIL in read_html(path.read_text())
    page = (folder / "results/made/report/index.html").read_text()
    seen = read_html(page)
    assert EVIL_DESCRIPTION in seen
    assert seen.count(EVIL) >= 4
    assert "<script>alert" not in page
    listed = (folder / "results/made/report/assets/images.js").read_text().removeprefix("window.suite = ")
    assert EVIL in [method["title"] for method in json.loads(listed.rstrip(";\n"))[0]["methods"]]


@pytest.mark.parametrize("verb", [["show"], ["status"], ["plan", "--rate", "1"]], ids=lambda verb: verb[0])
def test_terminal(titled, monkeypatch, capsys, verb):
    monkeypatch.chdir(titled[0])
    assert main([verb[0], "made.yaml", *verb[1:]]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert any(line.startswith(f"| {EVIL} ") for line in table)
    assert len({len(line) for line in table}) == 1, "the columns are aligned"


def test_loss_terms_of_a_custom_method_in_tensorboard_and_in_the_log(tmp_path, monkeypatch, capsys):
    name = f"{EVIL}\x1b[2J"
    history = History(tmp_path, {"rows": [], "sums": {}, "count": 0}, 0)
    history.add({name: torch.tensor(2.0)})
    history.row(1, 1.0, 1e-4, 1.0)
    history.write()
    history.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Tags()["scalars"] == [f"loss/{name}"]
    assert pd.read_csv(tmp_path / "history.csv")[name].tolist() == [2.0]
    monkeypatch.setattr("msgunet.training.progress._LINE_SECONDS", -1)
    Progress("a run", 0).step({name: torch.tensor(2.0)}, 9)
    assert f"{EVIL}\\x1b[2J=2" in capsys.readouterr().err


@pytest.mark.parametrize("suite", ["tiny", "my ``dir`` {{x}}/*a*.b/tiny.yaml"])
def test_the_text_of_snakemakes_own_report(suite):
    template = jinja2.Template((ROOT / "workflow" / "report" / "suite.rst").read_text())
    rst = template.render(snakemake=SimpleNamespace(config={"suite": suite}))
    html = docutils.core.publish_parts(rst, writer="html", settings_overrides={"report_level": 1, "halt_level": 1})
    assert " ".join(read_html(html["body"])[0].split()).endswith("ours. The suite is tiny.")
