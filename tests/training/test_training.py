"""Training: its files, its results, its errors and its schedule. Interruptions are tested in test_survival.py."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from conftest import TRAINABLE, make_settings, train, write_run
from PIL import Image

from msgunet.cli.main import main
from msgunet.core.errors import InterruptedTraining, UserError
from msgunet.core.settings import TrainingSettings
from msgunet.data.pairs import PairDataset
from msgunet.methods.generator import load_generator
from msgunet.methods.method import Phase, schedule_label
from msgunet.methods.registry import build_method
from msgunet.training import clock, loop, state
from msgunet.training.schedule import Schedule


def test_a_training_writes_its_files(tmp_path, data, compute):
    folder = tmp_path / "run"
    train(folder, make_settings(data, training=TrainingSettings(epochs=1, decay_epochs=2, batch_size=2)), compute)
    rows = (folder / "history.csv").read_text().splitlines()
    assert rows[0].startswith("step,epoch,learning_rate,seconds,")
    assert {"gan", "features", "perceptual", "d_fake", "d_real"} <= set(rows[0].split(","))
    rates = [float(row.split(",")[2]) for row in rows[1:]]
    assert rates == [2e-4] * 6 + [1e-4] * 3
    assert list((folder / "tensorboard").iterdir())
    with Image.open(folder / "samples" / "epoch-0003.png") as grid:
        assert grid.size == (3 * 64, 4 * 64)
    assert not list(folder.rglob(".tmp-*"))


def test_weights_move(tmp_path, data, compute):
    first = tmp_path / "start"
    train(first, make_settings(data, training=TrainingSettings(epochs=0, decay_epochs=0)), compute)
    train(tmp_path / "end", make_settings(data), compute)
    start, end = (load_generator(tmp_path / n / "generator.safetensors", torch.device("cpu")) for n in ("start", "end"))
    pairs = zip(start.network.named_parameters(), end.network.parameters(), strict=True)
    assert [name for (name, a), b in pairs if torch.equal(a, b)] == []


def test_workers_change_nothing(tmp_path, data, compute):
    settings = make_settings(data, training=TrainingSettings(epochs=1, decay_epochs=0, flip=True, jitter=4))
    assert train(tmp_path / "a", settings, compute) == train(
        tmp_path / "b", settings, compute.model_copy(update={"workers": 2})
    )


def test_gradient_records_change_nothing_and_are_evenly_spaced(tmp_path, data, compute):
    training = TrainingSettings(epochs=4, decay_epochs=0, batch_size=2)
    plain = train(tmp_path / "a", make_settings(data, training=training), compute)
    train(tmp_path / "b", make_settings(data, training=training, gradient_records=3), compute)
    rows = [row.split(",") for row in (tmp_path / "b" / "gradients.csv").read_text().splitlines()]
    kind, step, count = (rows[0].index(name) for name in ("kind", "step", "count"))
    assert sorted({int(row[step]) for row in rows[1:]}) == [4, 8, 12]
    counted = {k: sum(int(r[count]) for r in rows[1:] if r[kind] == k) for k in ("layer", "bin")}
    assert counted["layer"] == counted["bin"] > 0, "every gradient is in a bin"
    states = [load_generator(tmp_path / n / "generator.safetensors", torch.device("cpu")).network for n in "ab"]
    assert all(torch.equal(a, b) for a, b in zip(states[0].parameters(), states[1].parameters(), strict=True))
    assert plain


def test_a_time_limited_training_follows_the_clock_and_resumes(tmp_path, data, compute, monkeypatch):
    training = TrainingSettings(epochs=1, decay_epochs=3, batch_size=2, minutes=16.5 / 60)
    options = {"coarse_epochs": 0, "coarse_decay_epochs": 4, "freeze_epochs": 1}
    settings = make_settings(data, "pix2pixhd_local", training=training, options=options)
    now, steps, step = [0.0], [], loop.step

    def counted(*arguments):
        now[0] += 1
        steps.append(arguments[5])
        if len(steps) == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    # Each step takes one second. The clock begins after three steps, also of the second part.
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(loop, "step", counted)
    with pytest.raises(InterruptedTraining, match="after step 10 of 24; "):
        train(tmp_path / "run", settings, compute)
    train(tmp_path / "run", settings, compute)
    facts = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (facts["steps"], facts["seconds"]) == (len(steps), 17) == (23, 17)
    # Eight epochs in 16.5 seconds: four coarse ones, one with the global part frozen, three fine ones.
    rates = [[1, 1, 1, 3 / 4, 3 / 4, 1 / 2, 1 / 2, 1 / 4, 1 / 4], [1, 1], [1, 1, 2 / 3, 2 / 3, 1 / 3, 1 / 3]]
    by_second = [2e-4 * rate for phase in rates for rate in phase]
    seconds = [*[0] * 4, *range(1, 7), *[7] * 4, *range(8, 17)]
    assert steps == pytest.approx([by_second[second] for second in seconds])
    # A training that only publishes still reports the peak memory.
    monkeypatch.setattr(state, "process_peak_memory", lambda _: 1.0)
    train(tmp_path / "run", settings, compute)
    assert len(steps) == 23, "there is nothing left to do"
    assert (
        json.loads((tmp_path / "run" / "training.json").read_text())["peak_memory_mib"] == facts["peak_memory_mib"] > 1
    )
    assert json.loads((tmp_path / "run" / "progress.json").read_text())["total"] == 23
    assert (tmp_path / "run" / "samples" / "epoch-0007.png").exists(), "the sample at the end: 23 steps, 3 per epoch"


def test_settings_that_change_while_training_publish_nothing(tmp_path, data, compute, monkeypatch):
    folder = tmp_path / "run"
    publish = loop._publish

    def change_first(*arguments):
        publish(*arguments)
        write_run(folder, make_settings(data, training=TrainingSettings(epochs=3)))

    monkeypatch.setattr(loop, "_publish", change_first)
    with pytest.raises(UserError, match="was changed during the training"):
        train(folder, make_settings(data), compute)
    assert not (folder / "generator.safetensors").exists()


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_missing_or_wrong_run_file_is_named(tmp_path, content, capsys):
    run = tmp_path / "run.json"
    if content is not None:
        run.write_text(content)
    assert main(["train", "--run", str(run), "--out", str(tmp_path / "out")]) == 2
    assert f"error: {run}" in capsys.readouterr().err


def test_an_out_of_memory_error_is_explained(tmp_path, data, compute, monkeypatch, capsys):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(loop, "step", full)
    run = write_run(tmp_path / "run", make_settings(data))
    (tmp_path / "compute.json").write_text(compute.model_dump_json())
    where = ["--out", str(tmp_path / "run"), "--compute", str(tmp_path / "compute.json")]
    assert main(["train", "--run", str(run), *where]) == 2
    stderr = capsys.readouterr().err
    assert "msgunet on negatives: out of memory at 64x64, batch 2" in stderr
    assert "Tried to allocate 2.00 GiB" in stderr


def test_the_mean_row_is_the_mean(tmp_path, data, compute):
    train(tmp_path / "run", make_settings(data, "mean"), compute)
    model = load_generator(tmp_path / "run" / "generator.safetensors", torch.device("cpu"))
    pairs = PairDataset(data, "train", (64, 64), ("photo", "photo"))
    expected = torch.stack([pairs[i].target.double() / 127.5 - 1 for i in range(len(pairs))]).mean(0)
    assert torch.allclose(model([torch.zeros(1, 3, 64, 64)], "x")[0][0].double(), expected, atol=1e-6)


def test_a_damaged_or_foreign_generator_is_named(tmp_path):
    for content in (b"", b"<html>"):
        (tmp_path / "generator.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=r"generator\.safetensors: not a readable generator"):
            load_generator(tmp_path / "generator.safetensors", torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", TRAINABLE)
def test_training_on_a_gpu(tmp_path, data, compute, name):
    train(tmp_path / "run", make_settings(data, name), compute.model_copy(update={"device": "cuda"}))
    assert load_generator(tmp_path / "run" / "generator.safetensors", torch.device("cuda"))


@pytest.mark.parametrize(
    ("decay_from", "rates"),
    [
        # Pix2Pix, counted from 0: 1 - max(0, epoch + 1 - constant) / (decay + 1).
        ("first", [1, 1, 1 / 2, 3 / 4, 2 / 4, 1 / 4]),
        # Pix2Pix-HD subtracts 1 / decay after each epoch beyond the constant ones.
        ("second", [1, 1, 1, 1, 2 / 3, 1 / 3]),
    ],
)
def test_the_schedule_is_constant_then_linear_in_each_phase(decay_from, rates):
    training = TrainingSettings(learning_rate=1, decay_from=decay_from)
    phases = [Phase("a", 2, 1), Phase("b", 0, 3)]
    schedule = Schedule(phases, training, per_epoch=5)
    found = [schedule.at(step, 0) for step in range(5 * schedule.epochs)]
    assert [phase.name for _, phase, _ in found] == ["a"] * 15 + ["b"] * 15
    assert [rate for *_, rate in found] == pytest.approx([rate for rate in rates for _ in range(5)])
    assert [schedule.done(step, 0) for step in (0, 15, 30)] == [0, 0.5, 1]
    assert Schedule([Phase("none", 0, 0)], training, per_epoch=5).done(0, 0) == 1, (
        "without epochs there is nothing to do"
    )
    # If the training is time-limited, each epoch gets its share of the time, whatever the number of steps.
    schedule = Schedule(phases, training.model_copy(update={"minutes": 2}), per_epoch=5)
    found = [schedule.at(step, seconds) for step, seconds in enumerate(range(10, 120, 20))]
    assert [(index, phase.name) for index, phase, _ in found] == [(0, "a")] * 3 + [(1, "b")] * 3
    assert [rate for *_, rate in found] == pytest.approx(rates)
    assert [schedule.done(1000, seconds) for seconds in (0, 60, 120, 130)] == [0, 0.5, 1, 1]


def test_pix2pix_keeps_dropout_and_batch_statistics_at_test_time():
    method = build_method(make_settings("unused", "pix2pix"))
    generator = method.build_generator()
    method.prepare_inference(generator)
    layers = [m for m in generator.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert layers
    assert all(layer.running_mean is None and layer.running_var is None for layer in layers)
    source = torch.rand(1, 3, 64, 64)
    one, same, other = (torch.manual_seed(seed) and generator([source])[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert method.conditions().startswith("dropout and batch statistics")
    shallow = build_method(make_settings("unused", "pix2pix", options={"downsamplings": 4}))
    assert shallow.conditions().startswith("batch statistics")


def test_published_schedules():
    def phases(method, **options):
        settings = make_settings("unused", method, training=TrainingSettings(), options=options)
        method = build_method(settings)
        recipe = TrainingSettings(**method.recipe(method.options, method.size))
        return schedule_label(method.phases(recipe)), recipe.decay_from, recipe.flip, recipe.jitter

    assert phases("pix2pix") == ("100 + 100 epochs", "first", True, 8)
    assert phases("pix2pixhd") == ("100 + 100 epochs", "second", True, 0)
    local = phases("pix2pixhd", generator="local")
    assert local[0] == "100 + 100 epochs coarse, 10 + 0 epochs with the global part frozen, 40 + 50 epochs fine"


def test_pix2pixhd_trains_coarse_to_fine(tmp_path, data, compute, monkeypatch):
    """Train the global part alone at half the size, then the enhancer alone, then both. The head is not published."""
    settings = make_settings(data, "pix2pixhd_local", training=TrainingSettings(epochs=2, decay_epochs=1))
    seen, optimizers, original = [], {"generator": [], "discriminator": []}, loop.step

    def watch(method, state, sources, targets, *rest):
        def parts():
            weights = dict(state.generator.named_parameters())
            names = ("coarse.1.weight", "coarse_head.1.weight", "entry.1.weight")
            return [weights[name].detach().clone() for name in names]

        for network, found in optimizers.items():
            if state.optimizers[network] not in found:
                found.append(state.optimizers[network])
        before = parts()
        losses = original(method, state, sources, targets, *rest)
        moved = [not torch.equal(a, b) for a, b in zip(before, parts(), strict=True)]
        seen.append((sources[0].shape[-1], len(state.discriminator(sources, targets)), *moved))
        return losses

    monkeypatch.setattr(loop, "step", watch)
    train(tmp_path / "run", settings, compute)
    coarse, frozen, fine = (32, 1, True, True, False), (64, 2, False, False, True), (64, 2, True, False, True)
    assert seen == [coarse] * 18 + [frozen] * 6 + [fine] * 12
    assert {name: len(found) for name, found in optimizers.items()} == {"generator": 3, "discriminator": 2}
    model = load_generator(tmp_path / "run" / "generator.safetensors", torch.device("cpu"))
    assert not [name for name in model.network.state_dict() if "head" in name]
