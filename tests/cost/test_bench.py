"""`msgunet bench` on tiny networks, the engine compared with plain PyTorch, and torch.compile."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, TRAINABLE, make_settings
from safetensors.torch import load_file

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.core.settings import ComputeSettings, ImageFormat
from msgunet.cost import bench, variants
from msgunet.cost.throughput import FileTranslation
from msgunet.data.images import read
from msgunet.data.pairs import PairDataset, normalise, pyramid
from msgunet.device.meter import Meter
from msgunet.methods.generator import load_generator, save_generator
from msgunet.methods.inference import prepare
from msgunet.methods.losses import l1_sum
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.report.figures.speed import speed_figure
from msgunet.report.speed import speed_table
from msgunet.training.memory import blank_batch, step_needs
from msgunet.training.state import TrainingState
from msgunet.training.step import step


def fit(name, data, path):
    """Train a generator briefly, so that its outputs have contrast and its batch norms have statistics."""
    settings = make_settings(data, name)
    method = build_method(settings)
    torch.manual_seed(0)
    network = method.build_generator()
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    scales = method.scales(method.options, settings.size)
    pairs = PairDataset(data, "train", settings.size, ("photo", "photo"))
    sources, targets = (torch.stack(images) for images in zip(*(pairs[i] for i in range(len(pairs))), strict=True))
    sources, targets = (pyramid(normalise(images), scales, "photo") for images in (sources, targets))
    for _ in range(30):
        optimizer.zero_grad()
        l1_sum(network(sources), targets).backward()
        optimizer.step()
    save_generator(path, network.state_dict(), settings)
    return path


def outputs_of(model, data, plain=False):
    pairs = PairDataset(data, "test", model.settings.size, ("photo", "photo"))
    scales = model.method.scales(model.method.options, model.settings.size)
    outputs = []
    for i in range(len(pairs)):
        sources = pyramid(normalise(pairs[i].source[None]), scales, "photo")
        if plain:
            torch.manual_seed(0)
            with torch.no_grad():
                outputs += model.network(sources)
        else:
            outputs += model(sources, "same")
    return outputs


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_engines_outputs_equal_the_plain_networks_and_bf16_is_close(tmp_path, data, name):
    """fp32 agrees up to rounding; bf16 differs by less than half a grey level on average."""
    path = fit(name, data, tmp_path / "generator.safetensors")
    engine = load_generator(path, torch.device("cpu"))
    norms = [layer for layer in engine.network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    # SPADE computes scale and shift from the source.
    of_spade = [norm for norm in norms if name == "spade" and not norm.affine]
    assert all(norm.running_mean is None or norm in of_spade for norm in norms), "all others are folded"
    plain = engine.method.build_generator()
    plain.load_state_dict(load_file(path))
    engine.method.prepare_inference(plain.to(memory_format=torch.channels_last))
    reference = load_generator(path, torch.device("cpu"))
    reference.network = plain
    expected = outputs_of(reference, data)
    assert expected[0].std() > 0.05, "the generator is trained"
    actual = outputs_of(engine, data)
    assert max((a - b).abs().max().item() for a, b in zip(actual, expected, strict=True)) < 1e-4
    half = outputs_of(load_generator(path, torch.device("cpu"), "bf16"), data)
    assert {image.dtype for image in half} == {torch.float32}
    differences = [127.5 * (a - b).abs().mean().item() for a, b in zip(half, expected, strict=True)]
    assert 0 < max(differences) < 0.5


def test_folding_leaves_norms_that_see_the_batch():
    """Pix2Pix uses the statistics of the image at test time."""
    method = build_method(make_settings("unused", "pix2pix"))
    network = prepare(method, method.build_generator(), torch.device("cpu"))
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())


def test_bench_writes_its_results_and_resumes(tmp_path, working_folder, capsys, monkeypatch):
    out = tmp_path / "bench.csv"
    arguments = ["bench", "tiny", "--entry", "msgunet", "--repeats", "3", "--out", str(out)]
    assert main([*arguments, "--part", "inference", "--precision", "fp32"]) == 0
    first = pd.read_csv(out)
    assert len(first) == 2
    assert main([*arguments, "--precision", "fp32"]) == 0
    frame = pd.read_csv(out)
    pd.testing.assert_frame_equal(frame[:2], first, check_dtype=False)
    assert list(frame["part"]) == ["inference"] * 2 + ["training"] * 2
    assert main([*arguments, "--part", "training", "--precision", "fp32", "bf16"]) == 0
    captured = capsys.readouterr()
    frame = pd.read_csv(out)
    assert captured.err.count("msgunet at 64x64, inference") == 1, "measured once"
    assert list(frame["part"]) == ["inference"] * 2 + ["training"] * 4
    ways = list(frame["way"] + " " + frame["precision"])
    assert ways[-4:] == ["plain fp32", "engine fp32", "plain bf16", "engine bf16"]
    plain = frame["way"].eq("plain") & frame["precision"].eq("fp32")
    assert (frame.loc[plain, "speedup"] == 1).all()
    assert (frame["q25_ms"] <= frame["median_ms"]).all()
    assert (frame["median_ms"] <= frame["q75_ms"]).all()
    assert (frame[["tflop", "moved_gb", "tflop_per_s", "share_of_limit"]] > 0).all(axis=None)
    operations = frame["tflop"] / frame["limit_tflop_per_s"]
    memory = frame["moved_gb"] / frame["bandwidth_gb_per_s"]
    assert np.maximum(operations, memory).to_numpy() == pytest.approx(frame["limit_ms"].to_numpy() / 1000)
    assert "| MSG U-Net" in captured.out
    assert "Made by `msgunet bench tiny --entry msgunet --repeats 3" in captured.out
    assert main([*arguments, "--part", "training", "--precision", "fp32"]) == 0
    # No row is lost.
    pd.testing.assert_frame_equal(pd.read_csv(out), frame)
    monkeypatch.setattr("msgunet.core.provenance.commit", lambda: "another")
    assert main(arguments) == 2
    assert "holds rows with commit" in capsys.readouterr().err


def test_a_budget_ends_the_measurement_and_loses_nothing(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 11.0, 11.0, 11.0])
    monkeypatch.setattr(bench, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    runs = [make_settings("unused", name) for name in ("msgunet", "pix2pix")]
    arguments = [runs, tmp_path / "b.csv", ComputeSettings(device="cpu"), ["inference", "training"], ["fp32"], 2]
    frame = bench.bench(*arguments, budget=10)
    assert set(frame["entry"] + " " + frame["part"]) == {"msgunet inference"}
    left = "pix2pix at 64x64, inference; msgunet at 64x64, training; pix2pix at 64x64, training"
    assert f"not begun within 10 seconds: {left}; the same command continues" in capsys.readouterr().err
    monkeypatch.undo()
    whole = bench.bench(*arguments[:3], ["inference"], *arguments[4:], budget=1000)
    assert list(whole["entry"]) == ["msgunet", "msgunet", "pix2pix", "pix2pix"]
    pd.testing.assert_frame_equal(whole[:2], frame, check_dtype=False)


def test_the_table_shows_foretold_times_and_explains_shares_above_the_limit():
    frame = pd.read_csv(ROOT / "results" / "gpu" / "h100" / "speed" / "speed.csv")
    before = speed_table(frame, {}, "")
    assert "Foretold (ms)" not in before.columns
    assert not any("Winograd" in note for note in before.notes)
    engine = frame["way"] == "engine"
    frame = frame.assign(foretold_ms=frame["median_ms"].where(engine) / 2)
    frame.loc[0, "share_of_limit"] = 1.02
    # Measured part by part.
    table = speed_table(frame.sort_values("part", kind="stable"), {}, "")
    place = table.columns.index("Foretold (ms)")
    shown = {tuple(row[:5]): row[place] for row in table.rows}
    assert len(shown) == len(frame)
    assert [row[0] for row in table.rows] == [row[0] for row in before.rows]
    first = frame[engine].iloc[0]
    key = (first["entry"], f"{first['width']}×{first['height']}", first["part"], "engine", first["precision"])
    assert shown[key].text == f"{first['foretold_ms']:.1f}"
    assert any("Winograd" in note for note in table.notes)
    assert any("one after the other" in note for note in table.notes)


def test_no_network_exceeds_the_device_limit(tmp_path):
    """On some CPUs a matrix product reaches less than half the rate of a convolution."""
    settings = make_settings("unused", "msgunet", (256, 128), options={"width": 0.5})
    frame = bench.bench([settings], tmp_path / "b.csv", ComputeSettings(device="cpu"), ["inference"], repeats=3)
    assert set(frame["precision"]) >= {"fp32"}
    assert ((frame["share_of_limit"] > 0.05) & (frame["share_of_limit"] <= 1)).all(), frame["share_of_limit"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("limit_tflop_per_s", "0.177 TFLOP/s in fp32 (the faster of a large matrix product and a large convolution)"),
        ("matrix_tflop_per_s", "0.177 TFLOP/s in fp32 (large matrix products)"),
    ],
)
def test_the_table_says_how_the_limit_was_measured(column, expected):
    frame = pd.read_csv(ROOT / "results" / "measured" / "cpu_speed.csv")
    [note] = [
        note
        for note in speed_table(frame.rename(columns={"matrix_tflop_per_s": column}), {}, "").notes
        if "TFLOP/s" in note
    ]
    assert expected in note


def test_bench_reports_all_problems(tmp_path, working_folder, capsys):
    assert main(["bench", "tiny", "--entry", "msgunet", "pix2pux", "--size", "70", "64", "--out", "b.csv"]) == 2
    errors = capsys.readouterr().err
    assert "--entry pix2pux: suite 'tiny' does not train it; did you mean 'pix2pix'?" in errors
    assert "msgunet: size 70x64 is not divisible" in errors
    with pytest.raises(UserError, match="tf32 is for CUDA GPUs"):
        bench.bench([], tmp_path / "b.csv", ComputeSettings(device="cpu"), precisions=["tf32"])


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_engines_step_does_no_more_work_than_the_plain_one(name):
    """Work is counted on real steps. Where both losses use the same discriminator, they share its passes."""
    settings = make_settings("unused", name)
    method = build_method(settings)
    phase = method.phases(settings.training)[-1]
    perceptual = load_perceptual(settings.perceptual, None) if settings.perceptual else None
    counted = []
    for one in (step, lambda *a: variants.plain_step(*a[:5])):
        state = TrainingState(method, settings, torch.device("cpu"))
        state.begin_phase(method, phase, resumed=False)
        sources, targets = blank_batch(method, settings, phase, torch.device("cpu"))
        with Meter() as meter:
            one(method, state, sources, targets, perceptual, 1e-3, None)
        counted.append(meter.flop)
    assert counted[0] < counted[1] if method.generator_first else counted[0] == counted[1]
    assert step_needs(method, settings, phase, ComputeSettings()).flop == counted[0]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.slow
def test_a_compiled_step_has_the_same_losses():
    settings = make_settings("unused", "msgunet")
    method = build_method(settings)
    perceptual = load_perceptual(settings.perceptual, None)
    # A training calls this first. If torch.compile saw the step there, it would not compile it afterwards.
    step_needs(method, settings, method.phases(settings.training)[-1], ComputeSettings(compile=True))
    torch._dynamo.utils.counters.clear()
    losses = []
    for compiled in (False, True):
        state = TrainingState(method, settings, torch.device("cpu"), ComputeSettings(compile=compiled))
        torch.manual_seed(0)
        pyramids = [[torch.rand(2, 3, 64 >> k, 64 >> k) * 2 - 1 for k in range(2)] for _ in "st"]
        losses.append(step(method, state, *pyramids, perceptual, 1e-3, None))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 3
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-4)


def test_bench_times_the_way_from_file_to_file(tmp_path, working_folder, capsys):
    out = tmp_path / "bench.csv"
    arguments = ["bench", "tiny", "--entry", "msgunet", "--repeats", "2", "--precision", "fp32", "--out", str(out)]
    assert main([*arguments, "--part", "inference"]) == 0
    assert "Network's share" not in capsys.readouterr().out
    assert main([*arguments, "--part", "translate", "--compile"]) == 0
    printed = capsys.readouterr().out
    frame = pd.read_csv(out)
    assert list(frame["part"]) == ["inference"] * 2 + ["translate"] * 2
    assert list(frame["way"]) == ["plain", "engine"] * 2, "files are not translated by a compiled network"
    of_files = frame[frame["part"] == "translate"]
    assert frame["network_share"].isna().tolist() == [True, True, False, False]
    assert of_files["network_share"].between(0.01, 1.5).all()
    assert of_files["images_per_s"].to_numpy() == pytest.approx(1000 / of_files["median_ms"].to_numpy())
    # The same network for one image.
    assert of_files["tflop"].tolist() == frame["tflop"][:2].tolist()
    assert "| translate |" in printed
    assert "Network's share: the network alone as a share of that time." in printed
    [axis_titles] = [[axis.get_title() for axis in speed_figure(frame, {}).figure.axes]]
    assert axis_titles == ["inference, one image", "from file to file, one image"]


@pytest.mark.parametrize("given", [ImageFormat(), ImageFormat(channels=5), ImageFormat(channels=1, range=(100, 5000))])
def test_images_to_time_are_translated_to_the_same_files_in_both_ways(given):
    settings = make_settings("unused", "pix2pix", source_format=given, target_format=given)
    outputs = []
    for way in ("plain", "engine"):
        files = FileTranslation(settings, variants.Variant(way, "fp32"), torch.device("cpu"))
        files()
        paths = [files._path(i, "output") for i in range(files.images)]
        outputs.append([read(path, "x", given) for path in paths])
        if given.suffix == ".png":
            assert files._path(0).stat().st_size < 0.95 * 64 * 64 * given.channels * given.bits / 8, "compressible"
    for plain, engine in zip(*outputs, strict=True):
        assert plain.shape == (64, 64, given.channels)
        assert np.array_equal(plain, engine)
