"""The preflight check: what each part of a suite needs, and what is already there."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from made import fill, make_plan

from msgunet.core.errors import UserError
from msgunet.device import pick
from msgunet.suite import preflight
from msgunet.suite.preflight import check, rehearse


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine without GPU, with 50 GB of free disk; its properties may be changed."""
    found = SimpleNamespace(gpus=0, free=50e9, closed=())
    monkeypatch.setattr(pick, "gpu_count", lambda: found.gpus)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=found.free))
    monkeypatch.setattr(preflight, "may_write", lambda path: path not in found.closed)
    return found


def problems(plan, **options) -> list[str]:
    """Return the problems of a plan, each without its indentation."""
    try:
        check(plan, **options)
    except UserError as error:
        head, *found, tail = error.problems
        count = "1 requirement is" if len(found) == 1 else f"{len(found)} requirements are"
        assert head == f"suite 'made' cannot start: {count} not met:"
        assert "suite=demo" in tail
        return [problem.removeprefix("  - ") for problem in found]
    return []


def test_only_what_is_still_to_be_done_needs_gpus_and_disk(working_folder, machine):
    plan = make_plan(working_folder, compute={"gpu_required": True, "disk_gb": 51})
    new = problems(plan)
    assert [problem.split(":")[0] for problem in new] == ["a CUDA GPU", "disk"]
    assert new[1].startswith("disk: 51 GB are needed in ")
    assert new[1].endswith("(compute.disk_gb), 50 GB are free")
    assert [problem.split(":")[0] for problem in problems(plan, remote=True)] == ["disk"], "the nodes have the GPUs"
    fill(plan, without=("msgunet",))
    assert [problem.split(":")[0] for problem in problems(plan)] == ["a CUDA GPU"], "the data are prepared"
    fill(plan)
    assert problems(plan) == [], "tables can be made again on any machine"


def test_the_precision_of_evaluations_is_one_of_the_device(working_folder, machine):
    expected = "tf32 is for CUDA GPUs; on a CPU, use fp32 or bf16"
    plan = make_plan(working_folder, evaluation={"precision": "tf32"})
    assert [p for p in problems(plan) if "precision" in p] == [f"evaluation.precision 'tf32': {expected}"]
    assert not [p for p in problems(plan, remote=True) if "precision" in p], "the nodes have the GPUs"
    machine.gpus = 1
    assert not [p for p in problems(plan) if "precision" in p]
    machine.gpus = 0
    plan = make_plan(working_folder, evaluation={"precision": "training"})
    assert not [p for p in problems(plan) if "precision" in p]
    training = {"epochs": 1, "decay_epochs": 1, "precision": "tf32"}
    plan = make_plan(working_folder, evaluation={"precision": "training"}, training=training)
    assert f"evaluation.precision 'training': {expected}" in problems(plan)
    fill(plan)
    assert problems(plan) == [], "all are evaluated"


def test_archives_are_needed_until_the_data_are_prepared(working_folder):
    (working_folder / "mirror").mkdir()
    mirror = str(working_folder / "mirror")
    plan = make_plan(working_folder, datasets={"maps": {"size": [128, 64]}}, data={"mirror": mirror})
    (problem,) = problems(plan)
    assert "maps" in problem
    assert mirror in problem
    fill(plan, without=("msgunet",))
    assert problems(plan) == []


@pytest.mark.parametrize(("free", "enough"), [(40e9, True), (40e9 - 1, False), (60e9, True)])
def test_the_free_space_may_be_just_enough(working_folder, machine, free, enough):
    machine.free = free
    assert (problems(make_plan(working_folder, compute={"disk_gb": 40})) == []) == enough


@pytest.mark.parametrize(
    ("required", "processes", "gpus", "expected"),
    [
        (True, 2, 2, []),
        (True, 2, 3, []),
        (True, 2, 1, ["CUDA GPUs: compute.processes needs 2, torch finds 1"]),
        (True, 1, 1, []),
        (False, 1, 0, []),
    ],
)
def test_each_process_needs_a_gpu(working_folder, machine, required, processes, gpus, expected):
    machine.gpus = gpus
    compute = {"gpu_required": required, "processes": processes, "disk_gb": 1}
    assert problems(make_plan(working_folder, compute=compute, training={"batch_size": 2})) == expected


def test_named_weights_must_exist_if_they_are_used(working_folder):
    named = working_folder / "vgg19.pth"
    changes = {"compute": {"disk_gb": 1}, "data": {"vgg19": str(named)}}
    used = make_plan(working_folder, perceptual={"weights": "imagenet"}, **changes)
    assert problems(used) == [
        f"VGG-19 weights: data.vgg19 is {named}, which does not exist; leave it out to download them (548 MB)"
    ]
    assert problems(make_plan(working_folder, perceptual={"weights": "untrained"}, **changes)) == []
    named.touch()
    assert problems(make_plan(working_folder, perceptual={"weights": "imagenet"}, **changes)) == []
    downloaded = make_plan(working_folder, perceptual={"weights": "imagenet"}, compute={"disk_gb": 1})
    assert problems(downloaded) == [], "a rule downloads the default file"


def test_folders_of_others_are_found_where_something_is_still_written(working_folder, machine):
    plan = make_plan(working_folder, compute={"disk_gb": 1})
    done, rest = plan.runs[0].folder, plan.runs[1].folder
    fill(plan, without=(plan.runs[1].settings.entry,))
    logs = Path("logs")
    logs.mkdir()
    for file in (rest / "train.log", rest / ".lock", rest / "history.csv", done / "train.log"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    snakemake = Path(".snakemake")
    for folder in ("log", "metadata"):
        (snakemake / folder).mkdir(parents=True)
    (snakemake / "0.lock").touch()
    (snakemake / "other.txt").touch()

    def closed(*paths):
        machine.closed = paths
        return problems(plan)

    for place in (rest, rest / "train.log", rest / ".lock", snakemake, snakemake / "log", snakemake / "0.lock"):
        (problem,) = closed(place)
        assert problem.startswith(
            f"write access to one of the folders and files in {working_folder}: permission denied"
        )
        assert str(place) in problem
    (several,) = closed(rest, rest / "train.log")
    assert several.startswith("write access to 2 of the folders and files in ")
    assert f"folder {rest} " in several, "the first is named"
    # A file that is replaced, a finished run, data that are prepared, and other files of Snakemake need no access.
    data = plan.data[0].folder
    assert closed(rest / "history.csv", done, done / "train.log", data, snakemake / "other.txt") == []
    assert closed(logs) == []
    (data / "manifest.csv").unlink()
    assert len(closed(logs)) == len(closed(data)) == 1


def test_only_custom_methods_are_rehearsed(working_folder):
    assert rehearse(make_plan(working_folder)) == []
