"""Passes of a size that repeats are recorded once and replayed. On a CPU, a recording runs the network again."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import make_settings
from torch import nn

from msgunet.data.pairs import pyramid
from msgunet.device.notes import say
from msgunet.methods.generator import LoadedGenerator
from msgunet.methods.inference import prepare
from msgunet.methods.registry import build_method
from msgunet.methods.replay import MOST_RECORDINGS, USUAL_PASSES, Recording, Replayed


class Doubled(nn.Module):
    """Counts its passes; two outputs."""

    passes = 0

    def forward(self, sources):
        self.passes += 1
        return [2 * sources[0], sources[0] + 1]


class Once(Recording):
    """As on a GPU: the network's Python code runs once."""

    def _recorded(self):
        self.made.append(tuple(self._inputs[0].shape))
        return super()._recorded()

    def _replay(self):
        x = self._inputs[0]
        self._outputs[0].copy_(2 * x)
        self._outputs[1].copy_(x + 1)


@pytest.fixture
def once(monkeypatch):
    monkeypatch.setattr(Once, "made", [], raising=False)
    return Once


def image(*shape):
    return [torch.randn(*shape)]


def test_the_third_pass_of_a_shape_is_recorded_and_later_ones_are_replayed(once):
    network = Doubled()
    run = Replayed(network, once)
    kept = []
    for count in range(1, 6):
        x = image(1, 3, 4, 4)
        kept.append((x[0], run(x)))
        assert network.passes == min(count, USUAL_PASSES + 1)
        assert len(once.made) == (count > USUAL_PASSES)
    for x, (first, second) in kept:
        assert torch.equal(first, 2 * x), "a later pass does not change it"
        assert torch.equal(second, x + 1)


def test_few_recordings_are_kept_and_shapes_that_do_not_repeat_record_nothing(once):
    run = Replayed(Doubled(), once)
    for side in range(4, 9):
        run(image(1, 3, side, 4))
        run(image(1, 3, side, 4))
    assert once.made == []
    for side in range(4, 9):
        x = image(1, 3, side, 4)
        assert torch.equal(run(x)[0], 2 * x[0])
        assert len(run._recordings) <= MOST_RECORDINGS
    assert len(once.made) == 5
    run(image(1, 3, 8, 4))
    assert len(once.made) == 5


def test_random_numbers_are_drawn_in_every_pass(once):
    network = nn.Dropout(0.5)
    run = Replayed(lambda sources: [network(sources[0])], once)
    outputs = [run([torch.ones(1, 3, 8, 8)])[0] for _ in range(5)]
    assert once.made == []
    assert not torch.equal(outputs[3], outputs[4])


def test_a_pass_that_cannot_be_recorded_says_why_once(capsys):
    say.cache_clear()
    calls = []

    def refuse(network, inputs):
        calls.append(1)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    run = Replayed(Doubled(), refuse)
    for _ in range(5):
        x = image(1, 3, 4, 4)
        assert torch.equal(run(x)[0], 2 * x[0])
    assert len(calls) == 1
    expected = (
        "this network runs without CUDA graphs, since it cannot be recorded: operation not permitted when stream is"
    )
    assert capsys.readouterr().err == f"{expected} capturing\n"


def test_recordings_give_their_memory_to_a_pass_that_needs_it(once):
    class Large(Doubled):
        def forward(self, sources):
            if len(sources[0]) == 2 and run._recordings:
                raise torch.OutOfMemoryError("too large")
            return super().forward(sources)

    run = Replayed(Large(), once)
    for _ in range(3):
        run(image(1, 3, 4, 4))
    assert len(run._recordings) == 1
    x = image(2, 3, 4, 4)
    assert torch.equal(run(x)[0], 2 * x[0])
    assert not run._recordings


def test_threads_get_their_own_images(once):
    """A recording has one place for its inputs."""

    class Slow(once):
        def _replay(self):
            time.sleep(0.001)
            super()._replay()
            time.sleep(0.001)

    run = Replayed(Doubled(), Slow)
    for _ in range(3):
        run(image(1, 3, 4, 4))
    sources = [image(1, 3, 4, 4) for _ in range(24)]
    with ThreadPoolExecutor(4) as pool:
        outputs = [*pool.map(run, sources)]
    for source, output in zip(sources, outputs, strict=True):
        assert torch.equal(output[0], 2 * source[0])


def test_a_recording_that_needs_too_much_memory_ends_no_later_one(once):
    tries = []

    def record(network, inputs):
        tries.append(1)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("too large")
        return once(network, inputs)

    run = Replayed(Doubled(), record)
    for _ in range(5):
        x = image(1, 3, 4, 4)
        assert torch.equal(run(x)[0], 2 * x[0])
    assert len(tries) == 2
    assert len(run._recordings) == 1


@pytest.mark.parametrize("name", ["msgunet", "pix2pixhd_local", "pix2pix"])
def test_a_generator_replays_what_it_computes(name):
    settings = make_settings("unused", name)
    method = build_method(settings)
    torch.manual_seed(0)
    network = prepare(method, method.build_generator(), torch.device("cpu"))
    usual = LoadedGenerator(settings, method, network, torch.device("cpu"))
    replayed = LoadedGenerator(settings, method, network, torch.device("cpu"))
    replayed._passes = Replayed(network, Recording)
    scales = method.scales(method.options, (64, 64))
    for key in range(4):
        sources = pyramid(torch.rand(1, 3, 64, 64) * 2 - 1, scales, "photo")
        for one, other in zip(usual(sources, key), replayed(sources, key), strict=True):
            assert torch.equal(one, other)
            assert other.dtype == torch.float32
    assert len(replayed._passes._recordings) == (name != "pix2pix"), "Pix2Pix keeps its dropout"
    with replayed.with_statistics_of(sources, "whole"):
        inside = replayed(sources, "part")
        assert replayed._passes.paused == (name != "msgunet"), "whose norms need no statistics of the image"
    with usual.with_statistics_of(sources, "whole"):
        for one, other in zip(usual(sources, "part"), inside, strict=True):
            assert torch.equal(one, other)
    assert not replayed._passes.paused


def test_only_a_gpu_records_and_the_setting_turns_it_off():
    settings = make_settings("unused")
    method = build_method(settings)
    network = method.build_generator()
    found = [
        LoadedGenerator(settings, method, network, torch.device(device), cuda_graphs=wanted)._passes._record is not None
        for device, wanted in [("cpu", "auto"), ("cuda", "auto"), ("cuda", "off")]
    ]
    assert found == [False, True, False]
