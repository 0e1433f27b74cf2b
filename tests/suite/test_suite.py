"""Suites: what their files can say, and all problems are reported together."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from suites import GOOD, plan_of, problems_of

from msgunet.core.errors import UserError
from msgunet.suite.file import load_suite, suite_from_config
from msgunet.suite.models import Suite
from msgunet.suite.plan import load_plan


@pytest.mark.parametrize("name", [path.stem for path in ROOT.joinpath("config").glob("*.yaml")])
def test_shipped_suites_load(name):
    load_plan.cache_clear()
    assert load_plan(name).runs


def test_all_errors_are_reported_together_with_the_nearest_name(tmp_path):
    suite = {
        "datasets": {"bluemarbel": {"size": [64, 64]}, "bluemarble": {"sise": [64, 64]}},
        "methods": {
            "msgunet": {"options": {"widht": 0.5}, "training": {"epoch": 3}},
            "pixpix": {},
            "pan": {"options": {"margin": -1}, "datasets": ["bluemable"]},
        },
        "gradient": {},
        "ablation": {"methods": ["msgnet"]},
    }
    text = "\n".join(problems_of(tmp_path, suite))
    for expected in (
        "datasets.bluemarbel: unknown kind 'bluemarbel'; did you mean 'bluemarble'?",
        "datasets.bluemarble.sise: unknown key; did you mean 'size'?",
        "datasets.bluemarble.size: this key is missing",
        "methods.msgunet.options.widht: unknown key; did you mean 'width'?",
        "methods.msgunet.training.epoch: unknown key; did you mean 'epochs'?",
        "methods.pixpix: unknown method 'pixpix'; did you mean 'pix2pix'?",
        "methods.pan.options.margin: expected a number above 0 (got -1)",
        "there is no data set 'bluemable'; did you mean 'bluemarble'?",
        "gradient: unknown key; did you mean 'gradients'?",
        "there is no method entry 'msgnet'; did you mean 'msgunet'?",
    ):
        assert expected in text
    assert all(str(tmp_path / "mine.yaml") in problem for problem in problems_of(tmp_path, suite))


def test_entries_with_equal_titles_are_told_apart(tmp_path):
    methods = {"pix2pix": {}, "wide": {"method": "pix2pix", "options": {"width": 2}}, "pan": {}}
    plan = plan_of(tmp_path, {"datasets": {"bluemarble": {"size": [256, 256]}}, "methods": methods})
    assert plan.titles == {"pix2pix": "Pix2Pix (pix2pix)", "wide": "Pix2Pix (wide)", "pan": "PAN"}


def test_merge_keys_are_read(tmp_path):
    plan = plan_of(
        tmp_path,
        """
datasets: {bluemarble: {size: [64, 64]}}
methods:
  pix2pix: {training: &short {epochs: 3, decay_epochs: 2}}
  pan: {training: {<<: *short, epochs: 7}}
""",
    )
    schedules = [(run.settings.training.epochs, run.settings.training.decay_epochs) for run in plan.runs]
    assert schedules == [(3, 2), (7, 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "datasets: {bluemarble: {size: [64, 64]}}\nmethods: {copy: {}}\nmethods: {mean: {}}\n",
            "duplicate key 'methods' in line 3; it is already in line 2",
        ),
        ("datasets: [", "is not valid YAML"),
        ("", "datasets: this key is missing"),
        ("- a\n- b\n", "expected a section with keys: description, seeds, datasets"),
        ("datasets: {'../x': {size: [64, 64]}}\nmethods: {copy: {}}", "a name has at most 64 of the characters a-z"),
        ("datasets: {bluemarble: {size: [64, 64]}}\nmethods: {'$(touch x)': {}}", "a name has at most 64 of the char"),
        (
            "datasets: {bluemarble: {size: [64, 64]}}\nmethods: {copy: {}}\ntraining: {learning_rate: .nan}",
            "training.learning_rate",
        ),
    ],
)
def test_bad_files(tmp_path, text, expected):
    assert expected in "\n".join(problems_of(tmp_path, text))


HIDDEN = {
    "\n": "U+000A (line break)",
    "\t": "U+0009 (tab)",
    "\x1b": "U+001B (ESC)",
    "\0": "U+0000 (NUL)",
    "\u202e": "U+202E (RIGHT-TO-LEFT OVERRIDE)",
    "\u2028": "U+2028 (LINE SEPARATOR)",
}


@pytest.mark.parametrize(("c", "name"), HIDDEN.items(), ids=[name[:6] for name in HIDDEN.values()])
def test_control_characters_in_a_text_are_refused(tmp_path, c, name):
    text = f"a{c}b"
    suite = {
        **GOOD,
        "description": text,
        "methods": {"msgunet": {"title": text}, "pix2pix": {"file": text}},
        "data": {"mirror": text, "urls": {text: [text]}, "vgg19": text},
    }
    suite["datasets"] = {"bluemarble": {"kind": "folder", "size": [64, 64], "options": {"source": text, "target": "x"}}}
    problems = problems_of(tmp_path, suite)
    places = ["description", "methods.msgunet.title", "methods.pix2pix.file", "data.mirror", "data.vgg19"]
    places += [f"the key data.urls.{text}", f"data.urls.{text}.0", "datasets.bluemarble.options.source"]
    for place in places:
        start = f"{tmp_path / 'mine.yaml'}: {place}: a text is one line without control characters, but {text!r} holds"
        assert f"{start} {name}; remove it" in problems


def test_the_end_of_a_block_is_no_line_break(tmp_path):
    text = """
description: |
  What $5 buys.
datasets: {bluemarble: {size: [64, 64]}}
methods:
  msgunet:
    title: >
      MSG U-Net,
      one scale
  copy: {title: "  kept  "}
  mean: {title: "Zoë’s 👩\u200d🔬 5\u00a0€"}
"""
    plan = plan_of(tmp_path, text)
    assert plan.report["description"] == "What $5 buys."
    assert [*plan.titles.values()] == ["MSG U-Net, one scale", "kept", "Zoë’s 👩\u200d🔬 5\u00a0€"]
    (problem,) = problems_of(tmp_path, text.replace("description: |", "description: |\n  Two lines:"))
    assert "description: a text is one line" in problem


def test_a_list_that_contains_itself_is_read_once(tmp_path):
    text = 'datasets: {bluemarble: {size: [64, 64]}}\nmethods: {copy: {options: {x: &x [*x, "a\\tb"]}}}'
    assert "methods.copy.options.x.1: a text is one line" in "\n".join(problems_of(tmp_path, text))


def test_a_size_that_the_networks_cannot_take_names_one_that_works(tmp_path):
    suite = {"datasets": {"bluemarble": {"size": [250, 120]}}, "methods": {"msgunet": {}, "pix2pixhd": {}}}
    problems = problems_of(tmp_path, suite)
    assert "methods.msgunet on bluemarble: size 250x120 is not divisible by 32; 256x128 works" in problems[0]
    assert "methods.pix2pixhd on bluemarble: size 250x120 is not divisible by 16; 256x128 works" in problems[1]


@pytest.mark.parametrize(
    ("section", "value", "expected"),
    [
        ("ablation", {"methods": 5}, "ablation.methods"),
        ("ablation", {"methods": "msgunet"}, "ablation.methods"),
        ("ablation", {"methods": ["pix2pix"]}, "'pix2pix' has only one scale on bluemarble"),
        ("perceptual", {"weights": "imagenet", "width": 0.5}, "ImageNet weights need width 1"),
        ("report", {"protocol": "native"}, "which evaluation.protocols does not include"),
        ("gradients", {"dataset": "bluemarble", "method": "pix2pix"}, "has no intermediate outputs"),
        ("methods", {"msgunet": {"options": {"discriminators": "joint", "scales": 1}}}, "bluemarble: a joint"),
        ("datasets", {"bluemarble": {"size": [64, 64], "kind": ["a"]}}, "datasets.bluemarble.kind"),
        ("datasets", {"bluemarble": {"size": [64, 64], "options": {"latitudes": [80, -60]}}}, "from south to north"),
        ("datasets", {"bluemarble": {"size": [64, 64], "options": {"latitudes": [-95, 0]}}}, "latitudes.0"),
        ("methods", {"msgunet": {"options": {"scales": 5}}}, "5 scales need at least 6 levels, but the U-Net has 5"),
        ("methods", {"msgunet": {"options": {"levels": 7}}}, "7 levels reduce 64 pixels to less than 2"),
        ("methods", {"msgunet": {"datasets": 5}}, "methods.msgunet.datasets"),
        ("training", {"batch_size": 4, "accumulate": 3}, "a batch of 4 pairs (training.batch_size) cannot be split"),
        (
            "compute",
            {"processes": 2},
            "on bluemarble: a batch of 1 pairs (training.batch_size) cannot be split over 2 ",
        ),
    ],
)
def test_errors_that_would_surface_after_hours_are_reported_immediately(tmp_path, section, value, expected):
    suite = {**GOOD, "evaluation": {"protocols": ["full"]}, "report": {"protocol": "full"}, section: value}
    assert expected in "\n".join(problems_of(tmp_path, suite))


def test_gradients_of_an_entry_that_is_not_trained_there(tmp_path):
    suite = {**GOOD, "gradients": {"dataset": "bluemarble"}}
    suite["datasets"] = {"bluemarble": {"size": [64, 64]}, "other": {"kind": "bluemarble", "size": [64, 64]}}
    suite["methods"] = {"msgunet": {"datasets": ["other"]}}
    unused, gradients = problems_of(tmp_path, suite)
    assert "datasets.bluemarble: no method is trained on it" in unused
    assert "'msgunet' is not trained on 'bluemarble'" in gradients


def test_scientific_notation_is_a_number(tmp_path):
    text = "datasets: {bluemarble: {size: [64, 64]}}\nmethods: {msgunet: {}}\ntraining: {learning_rate: 1e-4}"
    assert plan_of(tmp_path, text).runs[0].settings.training.learning_rate == 1e-4


def test_missing_suite_names_the_nearest():
    with pytest.raises(UserError, match=r"no suite file .*demmo.yaml: did you mean 'demo'\?"):
        load_plan("demmo")
    with pytest.raises(UserError, match="a suite's name has only"):
        load_plan("../evil")


def test_an_unknown_config_key_does_not_run_the_paper():
    assert suite_from_config({}) == "paper"
    with pytest.raises(UserError, match="siute: unknown key"):
        suite_from_config({"siute": "demo"})


def test_names_in_data_are_checked(tmp_path):
    wrong = {**GOOD, "data": {"mirror": {"map": "x"}, "urls": {"maps.tgz": ["https://example.org"]}}}
    problems = "\n".join(problems_of(tmp_path, wrong))
    assert "data.mirror: there is no kind of data set 'map'; did you mean 'maps'?" in problems
    assert "data.urls: there is no published file 'maps.tgz'; did you mean 'maps.tar.gz'?" in problems


def test_recipes_are_overridden_key_by_key(tmp_path):
    suite = {**GOOD, "training": {"epochs": 7}}
    suite["methods"] = {"msgunet": {"training": {"learning_rate": 1e-3}}, "pix2pix": {"size": [32, 32]}}
    first, second = (run.settings.training for run in plan_of(tmp_path, suite).runs)
    assert (first.epochs, first.learning_rate, first.decay_epochs) == (7, 1e-3, 100)
    assert (second.epochs, second.learning_rate) == (7, 2e-4)


def test_gradient_variants_differ_in_the_intermediate_outputs_only(tmp_path):
    plan = plan_of(tmp_path, {**GOOD, "gradients": {"dataset": "bluemarble", "epochs": 5}})
    one, other = (run.settings.model_dump() for run in plan.gradients)
    assert one.pop("options") | {"intermediate_outputs": False} == other.pop("options")
    assert one == other
    assert one["training"]["epochs"] == 5
    limited = plan_of(tmp_path, {**GOOD, "gradients": {"dataset": "bluemarble", "minutes": 3}}).gradients
    assert [run.settings.training.minutes for run in limited] == [3, 3]


def test_a_joint_discriminator_cannot_be_trained_without_intermediate_outputs(tmp_path):
    suite = {**GOOD, "gradients": {"dataset": "bluemarble"}}
    suite["datasets"] = {"bluemarble": {"size": [128, 128]}}
    suite["methods"] = {"msgunet": {"options": {"discriminators": "joint", "scales": 2}}}
    [problem] = problems_of(tmp_path, suite)
    assert "gradients: 'msgunet' without intermediate outputs: a joint discriminator needs outputs" in problem


def test_planning_imports_no_torch():
    code = "import sys; from msgunet.suite.plan import load_plan; load_plan('paper'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_schema_is_up_to_date():
    shipped = json.loads((ROOT / "config" / "suite.schema.json").read_text())
    assert shipped == Suite.model_json_schema(), "run 'make schema'"


def test_every_shipped_suite_has_a_description():
    assert all(load_suite(path).description for path in ROOT.joinpath("config").glob("*.yaml"))
