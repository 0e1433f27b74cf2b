"""Steps as a CUDA graph are those without, to the last bit. On a CPU, a step that is kept replaces the graph."""

import pytest
import torch
from conftest import TRAINABLE, make_settings
from kept import Kept, assert_same, prepared, run

from msgunet.core.settings import ComputeSettings, TrainingSettings
from msgunet.methods.registry import build_method
from msgunet.training import graphs
from msgunet.training.graphs import WARM_UP, CudaGraph, Steps, graph_for

GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


def difference(first, second):
    """Return the largest difference of losses and gradients' norms."""
    return max(abs(a[key] - b[key]) for a, b in zip(first[0], second[0], strict=True) for key in a)


@pytest.fixture
def deterministic(monkeypatch):
    """On a GPU, sums in a fixed order."""
    for name, value in (("deterministic", True), ("benchmark", False)):
        monkeypatch.setattr(torch.backends.cudnn, name, value)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TRAINABLE)
def test_steps_as_a_graph_are_those_without(deterministic, name, device):
    """Through all phases, with dropout, a falling rate, an average of the weights, and a step that runs alone.

    Some operations of a GPU have no fixed order, such as the gradient of reflection padding. Where two trainings
    without a graph differ, one with a graph may differ ten times as much.
    """
    graph = Kept() if device == "cpu" else CudaGraph(torch.device(device))
    with_graph = run(name, device, graph, alone=(5,), ema=0.9)
    without = run(name, device, None, ema=0.9)
    noise = 0.0 if device == "cpu" else difference(without, run(name, device, None, ema=0.9))
    if noise == 0:
        assert_same(with_graph, without)
    else:
        assert difference(with_graph, without) < 10 * noise
    if device == "cpu":
        phases = len(build_method(make_settings("unused", name)).phases(TrainingSettings(epochs=1, decay_epochs=1)))
        assert graph.captures == phases
        assert graph.replays == 18 - phases * WARM_UP - 1


@pytest.mark.parametrize("device", DEVICES)
def test_the_random_numbers_of_a_graph_are_those_without(deterministic, device):
    """Pix2Pix has dropout: with the same numbers in every step, the losses would differ."""
    graph = Kept() if device == "cpu" else CudaGraph(torch.device(device))
    assert run("pix2pix", device, graph, 8)[0] == run("pix2pix", device, None, 8)[0]


class Failing(Kept):
    """A capture that fails after the step's code has run, as at a copy to the CPU."""

    def capture(self, step):
        super().capture(step)
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might")
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904


def test_after_a_capture_that_fails_the_training_goes_on_as_usual(capsys):
    graph = Failing()
    assert_same(run("msgunet", "cpu", graph, 8), run("msgunet", "cpu", None, 8))
    assert graph.captures == 1, "it is tried once"
    assert capsys.readouterr().err == (
        "no CUDA graph, since operation not permitted when stream is capturing; each operation of a step is launched\n"
    )


def test_a_step_that_waits_for_the_device_is_not_captured(capsys):
    graph = Kept()
    graph.waits = lambda step: (step(), "own.py:7 waits for the device")
    assert_same(run("msgunet", "cpu", graph, 6), run("msgunet", "cpu", None, 6))
    assert graph.captures == 0
    assert "no CUDA graph, since own.py:7 waits for the device;" in capsys.readouterr().err


def test_without_enough_memory_nothing_is_captured(capsys):
    graph = Kept()
    graph.free = 4
    run("msgunet", "cpu", graph, 5)
    assert graph.captures == 0
    assert "since it needs 0.0 GiB of memory and 0.0 GiB is free" in capsys.readouterr().err


def test_a_step_that_runs_alone_early_does_not_replace_the_search_for_waits(capsys):
    graph, searched = Kept(), []
    graph.waits = lambda step: (searched.append(1) or step(), None)
    assert_same(run("pix2pix", "cpu", graph, 8, alone=(0, 2)), run("pix2pix", "cpu", None, 8))
    assert searched == [1]
    assert graph.replays == 8 - 2 - WARM_UP


def test_images_of_another_size_are_captured_anew():
    """The captured step would read the images of before."""
    graph = Kept()
    state = prepared("pix2pix", "cpu", None)[1]
    steps = Steps(torch.device("cpu"), graph, (), state.optimizers.values)
    sums = [
        steps(lambda images: {"sum": images[0].sum()}, [torch.full((size,), float(i))])["sum"].item()
        for i, size in enumerate([2] * 6 + [3] * 6)
    ]
    assert sums == [i * size for i, size in enumerate([2] * 6 + [3] * 6)]
    assert (graph.captures, graph.replays) == (2, 6)


@pytest.mark.parametrize(
    ("compute", "processes", "device", "expected"),
    [
        ({}, 1, "cuda", True),
        ({"cuda_graphs": "off"}, 1, "cuda", False),
        ({"compile": True}, 1, "cuda", False),
        ({"activation_checkpointing": True}, 1, "cuda", False),
        ({}, 2, "cuda", False),
        ({}, 1, "cpu", False),
    ],
)
def test_graphs_are_for_plain_steps_on_one_gpu(monkeypatch, compute, processes, device, expected):
    monkeypatch.setattr(graphs, "CudaGraph", lambda device: device)
    found = graph_for(ComputeSettings(**compute), torch.device(device), processes)
    assert (found is not None) == expected
