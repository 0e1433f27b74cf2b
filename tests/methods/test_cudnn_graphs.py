"""How a plan is chosen for a fused layer, with graphs that only keep a clock."""

import sys
from types import SimpleNamespace

import pytest
import torch

from msgunet.device.notes import say
from msgunet.methods import cudnn_graphs
from msgunet.methods.cudnn_graphs import Layer

LAYER = Layer((1, 8, 4, 4), (8, 8, 3, 3), (1, 8, 4, 4), (1, 1), (1, 1, 1, 1), False, "none", 0.0, True, False)


class Graph:
    """A graph whose plans take these milliseconds; None is a plan that cannot be built."""

    def __init__(self, clock, plans, build_seconds):
        self.clock, self.plans, self.build_seconds = clock, plans, build_seconds
        self.built, self.run = [], []

    def get_execution_plan_count(self):
        return len(self.plans)

    def build_plan_at_index(self, index):
        self.clock.now += self.build_seconds
        if self.plans[index] is None:
            raise RuntimeError("no engine")
        self.built.append(index)


@pytest.fixture
def graphs(monkeypatch):
    """The graphs of a device, and a function that prepares what the next layers get."""
    clock, made = SimpleNamespace(now=0.0), []
    package = SimpleNamespace(create_handle=lambda: 0, set_stream=lambda **_: None)
    monkeypatch.setitem(sys.modules, "cudnn", package)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(cudnn_graphs.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(cudnn_graphs._Graphs, "_milliseconds", lambda self, graph, index, pointers: graph.plans[index])
    monkeypatch.setattr(cudnn_graphs._Graphs, "_execute", lambda self, graph, index, pointers: graph.run.append(index))
    say.cache_clear()

    def make(plans, build_seconds=0.1):
        def graph_of(layer, **where):
            if plans is None:
                raise RuntimeError("not supported\nmore")
            made.append(Graph(clock, plans, build_seconds))
            return made[-1]

        monkeypatch.setattr(cudnn_graphs, "graph_of", graph_of)
        return made

    return cudnn_graphs._Graphs(torch.device("cuda")), make


def layer(side):
    return Layer(**{**vars(LAYER), "x": (1, 8, side, side)})


def test_the_fastest_of_the_first_few_plans_is_chosen_once(graphs):
    device, make = graphs
    made = make([3.0, 1.0, 2.0, 0.1])
    assert device.run(layer(4), {})
    assert device.run(layer(4), {})
    [graph] = made
    assert graph.built == [0, 1, 2]
    assert graph.run == [1, 1]
    assert device.run(layer(5), {})
    assert len(made) == 2, "another shape, another graph"


def test_a_plan_that_cannot_be_built_is_left_out(graphs):
    device, make = graphs
    made = make([None, 2.0])
    assert device.run(layer(4), {})
    assert made[0].run == [1]


def test_choosing_ends_in_time(graphs, capsys):
    device, make = graphs
    made = make([3.0, 1.0, 2.0], build_seconds=1.0)
    assert device.run(layer(4), {})
    assert made[0].built == [0], "one plan took more than the seconds of a layer"
    made = make([3.0, 1.0, 2.0], build_seconds=0.2)
    sides = range(5, 1000)
    while made[-1].built != [0] or made[-1].build_seconds != 0.2:
        assert device.run(layer(next(iter(sides))), {})
        sides = sides[1:]
    assert 20 < device._seconds < 21
    while device.run(layer(sides[0]), {}):
        sides = sides[1:]
    assert 90 < device._seconds < 91
    assert not device.run(layer(sides[0]), {})
    assert device.run(layer(4), {}), "what was built stays"
    expected = "no further layers become one kernel: after 90 s of building, others stay plain\n"
    assert capsys.readouterr().err == expected


def test_a_refused_layer_is_said_once_and_not_asked_for_again(graphs, capsys):
    device, make = graphs
    make(None)
    assert not device.run(layer(4), {})
    make([1.0])
    assert not device.run(layer(4), {})
    assert device.run(layer(5), {})
    assert (
        capsys.readouterr().err == f"cuDNN refuses some layers, which stay plain, such as {layer(4)}: not supported\n"
    )


def test_without_a_plan_the_layer_is_refused(graphs, capsys):
    device, make = graphs
    make([None, None])
    assert not device.run(layer(4), {})
    assert "no engine" in capsys.readouterr().err
