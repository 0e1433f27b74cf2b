"""`msgunet profile` on tiny networks: work and time are attributed to the right layers."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import TRAINABLE, make_settings
from torch import nn

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.core.settings import ComputeSettings, TrainingSettings
from msgunet.cost import profile, variants
from msgunet.cost.predict import needs
from msgunet.cost.profile import BETWEEN

CPU = torch.device("cpu")
LIMITS = {"fp32": 0.1, "bf16": 0.1, "bandwidth": 10.0}


@pytest.fixture
def known_limits(monkeypatch):
    """Fixed device limits, because measuring them takes seconds."""
    monkeypatch.setattr(profile, "in_new_process", lambda *_: LIMITS)


def leaves_called(inference):
    """Return the names of the leaf modules that a pass calls, except those that change nothing."""
    called, handles = set(), []
    for name, module in inference.network.named_modules():
        idle = isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout) and not module.training)
        if not (idle or any(module.children()) or "parametrizations" in name):
            handles.append(module.register_forward_hook(lambda *_, name=name: called.add(name)))
    inference()
    for handle in handles:
        handle.remove()
    return called


@pytest.mark.parametrize("way", ["plain", "engine"])
@pytest.mark.parametrize("name", TRAINABLE)
def test_the_work_of_all_layers_is_what_bench_counts_for_the_pass(name, way):
    settings = make_settings("unused", name)
    for precision in ("fp32", "bf16"):
        inference = variants.Inference(settings, variants.Variant(way, precision), CPU)
        work = profile.layer_work(inference)
        counted = needs(settings, "inference", precision, "cpu")
        flop, moved = counted.flop, counted.moved
        assert sum(done.flop for done in work.values()) == flop > 0
        total = sum(done.moved for done in work.values() if done.flop)
        # Folded batch norm adds a bias to the convolutions, which bench counts for both ways.
        assert total == moved if way == "engine" else 0.99 * moved < total <= moved
        assert all(done.moved > 0 for layer, done in work.items() if layer != BETWEEN)
    # With spectral norm a convolution has submodules, but it is still one layer.
    assert leaves_called(inference) <= set(work)
    convolutions = {n for n, m in inference.network.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
    assert {layer for layer, done in work.items() if done.flop} == convolutions
    extra = set(work) - leaves_called(inference) - convolutions
    assert extra == {BETWEEN}
    assert {done.calls for done in work.values()} == {1}


class Twice(nn.Module):
    """A layer called `calls` times, one called once, one that does nothing, and an addition."""

    def __init__(self, calls):
        super().__init__()
        self.again = nn.Conv2d(3, 3, 1, bias=False)
        self.relu = nn.ReLU()
        self.nothing = nn.Identity()
        self.calls = calls

    def forward(self, sources):
        x = sources[0]
        for _ in range(self.calls):
            x = self.again(x)
        return [self.nothing(self.relu(x)) + x]


class Pass(SimpleNamespace):
    def __call__(self):
        self.network(self.sources)


def pass_of(network):
    return Pass(network=network, sources=[torch.rand(1, 3, 8, 8)], autocast=nullcontext())


def test_the_work_of_a_layer_is_multiplied_by_its_calls():
    image = 4 * 3 * 8 * 8
    for calls in (1, 3):
        inference = pass_of(Twice(calls))
        work = profile.layer_work(inference)
        assert list(work) == ["again", "relu", BETWEEN]
        assert work["again"] == profile.Work(calls, calls * 2 * 3 * 3 * 64, calls * (2 * image + 4 * 9))
        assert work["relu"] == profile.Work(1, 0, 2 * image)
        assert work[BETWEEN] == profile.Work(1, 0, 3 * image), "two read, one written"


def test_times_go_to_the_layers_that_take_them(monkeypatch):
    """The clock only advances in layers and in the addition."""
    now = [0.0]
    monkeypatch.setattr(profile, "perf_counter", lambda: now[0])
    network = Twice(3)

    def slow(module, seconds):
        usual = module.forward

        def forward(x):
            now[0] += seconds
            return usual(x)

        module.forward = forward

    for module, seconds in ((network.again, 2.0), (network.relu, 5.0), (network.nothing, 0.5), (network, 1.0)):
        slow(module, seconds)
    layers = {"again": network.again, "relu": network.relu}
    assert profile.layer_seconds(pass_of(network), layers, CPU) == {"again": 6.0, "relu": 5.0, BETWEEN: 1.5}


def test_the_parts_are_the_whole_pass():
    inference = variants.Inference(make_settings("unused", "msgunet"), variants.Variant("engine", "fp32"), CPU)
    rows = pd.DataFrame(profile.by_layer(inference, CPU, 1))
    assert (rows["median_ms"] > 0).all()
    assert rows["median_ms"].sum() == pytest.approx(rows["measured_ms"][0])
    assert rows["share"].sum() == pytest.approx(1)
    start = time.perf_counter()
    seconds = profile.layer_seconds(inference, dict(inference.network.named_modules()), CPU)
    assert 0 < sum(seconds.values()) < time.perf_counter() - start
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in inference.network.modules())


def test_rows_are_sorted_by_lost_time_not_by_total_time():
    work = {"tflop": 0.0, "level": "layer"}
    rows = [
        {**work, "name": "long", "median_ms": 100.0, "moved_gb": 0.95},
        {**work, "name": "lossy", "median_ms": 20.0, "moved_gb": 0.05},
        {**work, "name": "cached", "median_ms": 1.0, "moved_gb": 0.1},
        {**work, "name": "busy", "median_ms": 30.0, "moved_gb": 0.0, "tflop": 0.0022},
    ]
    sorted_rows = profile.against_limits(rows, "fp32", LIMITS)
    assert [(row["name"], round(row["lost_ms"], 6)) for row in sorted_rows] == [
        ("lossy", 15.0),
        ("busy", 8.0),
        ("long", 5.0),
        ("cached", -9.0),
    ]


@pytest.mark.parametrize(
    ("entry", "place", "attribute", "where"),
    [("pix2pix", nn.Tanh, "forward", "up.0.2"), ("msgunet", torch, "cat", BETWEEN)],
)
def test_a_slow_layer_comes_first(working_folder, capsys, monkeypatch, known_limits, entry, place, attribute, where):
    usual = getattr(place, attribute)
    monkeypatch.setattr(place, attribute, lambda *args: (time.sleep(0.1), usual(*args))[1])
    arguments = ["profile", "tiny", "--entry", entry, "--repeats", "1", "--rows", "3", "--out", "found.csv"]
    assert main(arguments) == 0
    frame = pd.read_csv("found.csv")
    layers = frame[frame["level"] == "layer"]
    assert layers["name"][0] == where
    assert 100 <= layers["median_ms"][0] < layers["measured_ms"][0]
    assert layers["lost_ms"].is_monotonic_decreasing
    tables = capsys.readouterr().out.split("###")
    rows = [line.split("|")[1].strip() for line in tables[1].splitlines() if line.startswith("| ")]
    assert rows == ["Layer", *layers["name"][:3], f"({len(layers) - 3} more)", "total"]
    assert "by torch operator" in tables[2]


def test_profile_writes_its_results_with_their_conditions(working_folder, capsys):
    assert main(["profile", "tiny", "--entry", "msgunet", "--way", "plain", "--repeats", "2", "--out", "a/b.csv"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "msgunet at 64x64, inference\n"
    assert "### MSG U-Net at 64×64, inference, plain, fp32: by layer" in captured.out
    assert "Made by `msgunet profile tiny --entry msgunet --way plain --repeats 2" in captured.out
    frame = pd.read_csv("a/b.csv")
    facts = ["commit", "device", "threads", "versions", "entry", "width", "height", "part", "way", "precision"]
    assert frame[facts].notna().all(axis=None)
    layers = frame[frame["level"] == "layer"].set_index("name")
    assert layers.loc["up.0.0", "kind"] == "ConvTranspose2d"
    assert layers.loc["up.0.1", "kind"] == "BatchNorm2d", "the plain network has its norms"
    assert (layers[["median_ms", "limit_ms", "moved_gb", "undisturbed_ms", "bandwidth_gb_per_s"]] > 0).all(axis=None)
    least = pd.concat(
        [layers["tflop"] / layers["limit_tflop_per_s"], layers["moved_gb"] / layers["bandwidth_gb_per_s"]], axis=1
    ).max(axis=1)
    assert (1000 * least).to_numpy() == pytest.approx(layers["limit_ms"].to_numpy())
    assert (layers["median_ms"] - layers["limit_ms"]).to_numpy() == pytest.approx(layers["lost_ms"].to_numpy())


@pytest.mark.parametrize("way", ["plain", "engine"])
def test_a_training_step_by_operator(capfd, working_folder, way):
    training = ["--part", "training", "--way", way, "--repeats", "2", "--out", "found.csv"]
    assert main(["profile", "tiny", "--entry", "msgunet", *training]) == 0
    captured = capfd.readouterr()
    assert captured.err == "msgunet at 64x64, training\n", "nothing from torch"
    assert "| Operator " in captured.out
    assert "by layer" not in captured.out
    frame = pd.read_csv("found.csv")
    assert set(frame["level"]) == {"operator"}
    assert {"aten::convolution", "aten::convolution_backward"} <= set(frame["name"])
    assert frame["mean_ms"].is_monotonic_decreasing
    assert 0 < frame["mean_ms"].sum() <= frame["measured_ms"][0]
    calls = frame.set_index("name")["calls"]
    assert calls["aten::convolution"] % 1 == 0, "counted per step"
    assert calls["aten::convolution"] >= calls["aten::convolution_backward"] > 10


def test_profile_reports_problems(working_folder, capsys):
    assert main(["profile", "tiny", "--entry", "msgunot"]) == 2
    assert "--entry msgunot: suite 'tiny' does not train it; did you mean 'msgunet'?" in capsys.readouterr().err
    assert main(["profile", "tiny", "--size", "64", "64"]) == 2
    errors = capsys.readouterr().err
    assert "error: choose one of 4 networks of suite 'tiny':\n  --entry pix2pix --size 64 64\n" in errors
    assert main(["profile", "tiny", "--entry", "msgunet", "--size", "70", "64"]) == 2
    assert "msgunet: size 70x64 is not divisible" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["profile", "tiny", "--way", "compiled"])
    settings = make_settings("unused", training=TrainingSettings())
    with pytest.raises(UserError, match="tf32 is for CUDA GPUs"):
        profile.profile(settings, "inference", variants.Variant("engine", "tf32"), ComputeSettings(device="cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("part", ["inference", "training"])
def test_profile_on_a_gpu(part):
    settings = make_settings("unused", "msgunet", (256, 256), options={"width": 0.5})
    frame = profile.profile(settings, part, variants.Variant("engine", "bf16"), ComputeSettings(device="cuda"))
    times = frame["mean_ms"] if part == "training" else frame["mean_ms"].fillna(frame["median_ms"])
    assert (times > 0).all()
    for level in ("operator", "kernel"):
        rows = frame[frame["level"] == level]
        assert 0 < rows["mean_ms"].sum() < rows["measured_ms"].iloc[0]
