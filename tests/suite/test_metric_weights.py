"""Weights that metrics need: what is missing is said before anything runs."""

import shutil
from types import SimpleNamespace

import pytest
from made import fill, make_plan
from suites import GOOD, problems_of

from msgunet.cli.main import main
from msgunet.core.metrics import measuring_memory, weights_of
from msgunet.core.paths import WEIGHTS as FOLDER
from msgunet.core.settings import DataSettings, EvaluationSettings
from msgunet.methods.weights import WEIGHTS
from msgunet.suite import jobs, preflight

NARROW = {"width": 0.0625, "discriminator_width": 0.0625}


@pytest.fixture(autouse=True)
def _space(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50e9))
    monkeypatch.setattr(preflight, "may_write", lambda _: True)


def plan_with(folder, metrics, **data):
    methods = {"pix2pix": {"options": NARROW}}
    return make_plan(folder, methods=methods, ablation={}, evaluation={"metrics": metrics}, data=data)


def test_named_weights_that_are_missing_are_one_error(working_folder, capsys):
    here = working_folder / "vgg16.pth"
    plan_with(working_folder, ["psnr", "lpips", "dists"], vgg16=str(here), dists="no.pt")
    assert main(["check", "made.yaml"]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "weights of" in line)
    assert line.strip() == (
        f"- weights of LPIPS and DISTS: data.vgg16 is {here}, which does not exist (528 MB, torchvision's ImageNet "
        "weights of VGG-16: https://download.pytorch.org/models/vgg16-397923af.pth); data.dists is no.pt, which does "
        "not exist (12 kB, the authors' weights of DISTS: https://raw.githubusercontent.com/dingkeyan93/DISTS/master/"
        "DISTS_pytorch/weights.pt); 'msgunet fetch vgg16 dists' downloads them into data/weights, where they are found "
        "unless the suite's data names others; where there is no network, copy them there"
    )
    plan = plan_with(working_folder, ["psnr", "ms_ssim"], vgg16=str(here))
    assert main(["check", "made.yaml"]) == 0, "these metrics need no weights"
    plan = plan_with(working_folder, ["lpips"], vgg16=str(here))
    fill(plan)
    assert main(["check", "made.yaml"]) == 0, "everything is evaluated"


def test_a_rule_downloads_the_default_files_and_check_says_so(working_folder, capsys):
    plan_with(working_folder, ["lpips"])
    assert main(["check", "made.yaml"]) == 0
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("data/weights/vgg16-397923af.pth will be downloaded: 528 MB, torchvision's ImageNet")
    assert second.endswith("or beforehand: msgunet fetch lpips")
    for name in ("vgg16-397923af.pth", "lpips-vgg-a78928a0.pth"):
        (working_folder / FOLDER).mkdir(parents=True, exist_ok=True)
        (working_folder / FOLDER / name).touch()
    assert main(["check", "made.yaml"]) == 0
    assert "downloaded" not in capsys.readouterr().out


def test_default_places_have_the_names_under_which_files_are_fetched():
    for key, remote in WEIGHTS.items():
        assert getattr(DataSettings(), key) == str(FOLDER / remote.name)
        assert remote.name.rpartition("-")[2].split(".")[0] == remote.checksum.removeprefix("sha256:")[:8]


def test_an_unknown_metric_lists_the_known_ones(tmp_path):
    (problem,) = problems_of(tmp_path, {**GOOD, "evaluation": {"metrics": ["psnr", "lpip"]}})
    assert "'psnr', 'ssim', 'vif', 'ms_ssim', 'lpips' or 'dists' (got 'lpip'); did you mean 'lpips'?" in problem


def test_the_default_evaluation_is_what_it_was():
    """Its JSON is the input of a rule: another one would evaluate every suite again."""
    assert EvaluationSettings().model_dump_json() == ('{"metrics":["psnr","ssim","vif"],"protocols":["native","full"]}')


def test_networks_request_memory_and_time(working_folder):
    assert weights_of(("psnr", "lpips", "dists")) == ["vgg16", "lpips", "dists"]
    assert measuring_memory(("psnr", "vif"), 1000, 500) == 150 * 1000 * 500
    assert measuring_memory(("psnr", "lpips"), 1000, 500) == 2500 * 1000 * 500
    assert measuring_memory(("dists",), 1024, 512) == 2500 * 512 * 256, "it resizes images"
    requests = []
    for metrics in (["psnr", "ssim", "vif"], ["lpips"]):
        plan = plan_with(working_folder, metrics)
        requests.append(jobs.evaluation(plan, plan.runs[0]))
    assert requests[1].mem_mb > requests[0].mem_mb
    assert requests[1].runtime >= requests[0].runtime
