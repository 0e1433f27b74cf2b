"""Files written by commit 25f1304 can still be read: a generator, a checkpoint in mid-training, and a suite."""

import ast
import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, make_data
from PIL import Image
from safetensors.torch import load_file
from suites import problems_of

import msgunet
from msgunet.core.files import short_hash
from msgunet.core.settings import RunSettings
from msgunet.methods import method_file
from msgunet.methods.generator import load_generator
from msgunet.suite.plan import load_plan
from msgunet.training import loop

EARLIER = ROOT / "tests" / "fixtures" / "25f1304"


def test_a_checkpoint_is_resumed_to_the_same_generator(working_folder, compute, capsys):
    make_data(Path("data"))
    out = Path("run")
    shutil.copytree(EARLIER, out, ignore=shutil.ignore_patterns("generator.safetensors", "training.json"))
    loop.train(out / "run.json", out, compute, Path("unused"))
    assert "step 3" in capsys.readouterr().err, "it must not start over"
    actual, expected = (load_file(folder / "generator.safetensors") for folder in (out, EARLIER))
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        # The last bits differ between CPUs.
        assert actual[name].numpy() == pytest.approx(tensor.numpy(), rel=1e-3, abs=1e-5), name


def test_a_generator_translates():
    model = msgunet.load(EARLIER / "generator.safetensors", device="cpu")
    assert model.settings == RunSettings.model_validate_json((EARLIER / "run.json").read_text())
    assert model.translate(Image.new("RGB", (70, 50), "teal")).size == (70, 50)


def test_a_mean_is_loaded():
    assert load_generator(EARLIER / "mean.safetensors", "cpu").network.picture.std() > 0.1


def test_a_suite_has_the_same_runs(working_folder):
    """Identities are unchanged, so no earlier training is repeated, except of methods with a new version."""
    shutil.copy(EARLIER / "early.yaml", working_folder)
    plan = load_plan("early.yaml")
    identities = {str(run.folder): run.settings.identity for run in (*plan.runs, *plan.gradients)}
    earlier = json.loads((EARLIER / "runs.json").read_text())
    changed = {Path(folder).parent.name for folder in earlier if identities[folder] != earlier[folder]}
    assert identities.keys() == earlier.keys()
    assert changed == {"pix2pix", "pan"}


def test_an_old_key_is_answered_with_its_new_name(tmp_path):
    suite = {
        "datasets": {"bluemarble": {"size": [64, 64]}},
        "methods": {"mean": {}},
        "evaluation": {"measures": ["psnr"]},
    }
    (problem,) = problems_of(tmp_path, suite)
    assert "evaluation.measures: this key has been renamed to 'evaluation.metrics'" in problem


def test_the_code_of_a_custom_method_has_the_same_hash():
    """Of code without the project's imports, which have moved: it is not trained again."""
    source = '''
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Not part of the hash."""

    a: int = 1
    b: float = 2.5  # nor this

    def total(self, *more: int, scale: float = 1.0, **rest: int) -> float:
        return (self.a + sum(more, start=0) + sum(rest.values())) * scale if math.isfinite(self.b) else 0.0


VALUES = [f"{i:>3}" for i in range(3) if i % 2 == 0]
'''
    assert short_hash(method_file._dump(ast.parse(source))) == "a84d579d"
