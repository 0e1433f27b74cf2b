"""The memory that a training needs, estimated before it runs, and ways to train in less memory."""

import multiprocessing

import pytest
import torch
from conftest import ADVERSARIAL, TRAINABLE, make_settings, through_phases, train

from msgunet.core.errors import UserError
from msgunet.core.settings import ComputeSettings, TrainingSettings
from msgunet.device import pick as device
from msgunet.device.measuring import peak_memory, warm_up_libraries
from msgunet.device.meter import Meter
from msgunet.methods.losses import eager_gradient, l1_sum
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import VGG19Features, load_perceptual
from msgunet.training import memory
from msgunet.training.state import TrainingState
from msgunet.training.step import step

MIB = 2**20


def settings_of(name, size=(64, 64), **training):
    return make_settings("unused", name, size, training=TrainingSettings(**training))


def needs(name, size=(64, 64), compute=None, **training):
    settings = settings_of(name, size, **training)
    method = build_method(settings)
    return memory.step_needs(method, settings, method.phases(settings.training)[-1], compute or ComputeSettings())


def real_step(name: str, size: tuple[int, int], options: dict, compute: ComputeSettings, queue) -> None:
    """Put the estimated memory of a step and the memory that two real steps used into `queue`, in MiB."""
    torch.set_num_threads(1)
    perceptual = {"weights": "untrained", "width": 0.25}
    settings = make_settings("unused", name, size, options=options, perceptual=perceptual)
    method = build_method(settings)
    phase = method.phases(settings.training)[-1]
    estimate = memory.step_needs(method, settings, phase, compute).memory / MIB
    warm_up_libraries(torch.device("cpu"))
    with peak_memory(torch.device("cpu")) as used:
        two_steps(method, settings, phase, compute)
    queue.put((estimate, used[0]))


def two_steps(method, settings, phase, compute) -> None:
    state = TrainingState(method, settings, torch.device("cpu"), compute)
    state.begin_phase(method, phase, resumed=False)
    network = load_perceptual(settings.perceptual, None).to(memory_format=torch.channels_last)
    images = memory.blank_batch(method, settings, phase, torch.device("cpu"))
    for _ in range(2):
        step(method, state, *images, network, 1e-3, None)


@pytest.mark.parametrize(("name", "recompute"), [("msgunet", False), ("pix2pixhd", True)])
def test_the_estimate_matches_a_real_step(name, recompute):
    """Allow for the memory that libraries use in addition to the tensors."""
    options = {"width": 0.5, "discriminator_width": 0.5}
    options |= {"scales": None} if name == "msgunet" else {"downsamplings": 3, "blocks": 4}
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    compute = ComputeSettings(activation_checkpointing=recompute)
    process = context.Process(target=real_step, args=(name, (256, 256), options, compute, queue))
    process.start()
    estimate, used = queue.get(timeout=120)
    process.join()
    assert 0.95 * estimate < used < 1.3 * estimate + 100


def test_the_meter_counts_tensors_operations_and_bytes():
    with torch.device("meta"), Meter() as meter:
        a, b = torch.empty(64, 32), torch.empty(32, 16)
        a @ b
        kept = torch.empty(1000)
        del a, b
    assert meter.flop == 2 * 64 * 32 * 16
    assert meter.moved == 4 * (64 * 32 + 32 * 16 + 64 * 16)
    assert meter.peak == 4 * (64 * 32 + 32 * 16 + 64 * 16)
    assert meter.bytes == kept.nbytes


# Of the narrow control, the images themselves are most of the memory.
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_checkpointed_activations_bf16_and_parts_need_less(name):
    size = (256, 256)
    usual = needs(name, size, batch_size=4).memory
    recomputed = needs(name, size, ComputeSettings(activation_checkpointing=True), batch_size=4)
    assert recomputed.memory < 0.95 * usual
    assert recomputed.flop > needs(name, size, batch_size=4).flop
    assert needs(name, size, batch_size=4, precision="bf16").memory < 0.9 * usual
    assert needs(name, size, batch_size=4, accumulate=4).memory < 0.8 * usual


def test_the_papers_networks_fit_a_24_gb_card_at_2048x1024():
    """In fp32, with all settings that affect the result unchanged. With bf16, half of the memory is free."""
    perceptual = {"weights": "imagenet", "width": 1}
    for name, options in (("msgunet", {}), ("pix2pixhd", {}), ("pix2pixhd", {"generator": "global"})):
        full = {"width": 1.0, "discriminator_width": 1.0, "scales": None, "downsamplings": 4, "blocks": 9}
        known = set(build_method(settings_of(name)).options.model_dump())
        options = {k: v for k, v in full.items() if k in known} | options
        settings = make_settings("unused", name, (2048, 1024), options=options, perceptual=perceptual)
        settings = settings.model_copy(update={"training": TrainingSettings()})
        method = build_method(settings)
        phases = method.phases(settings.training)
        worst = max(memory.step_needs(method, settings, phase, ComputeSettings()).memory for phase in phases)
        assert worst < 18 * 2**30


@pytest.mark.parametrize("name", TRAINABLE)
def test_checkpointed_activations_change_nothing(tmp_path, data, compute, name):
    training = TrainingSettings(epochs=1, decay_epochs=1, batch_size=2, ema=0.9)
    options = {"coarse_epochs": 1, "coarse_decay_epochs": 0} if "local" in name else {}
    settings = make_settings(data, name, training=training, options=options)
    usual = train(tmp_path / "usual", settings, compute)
    recomputed = train(tmp_path / "recomputed", settings, compute.model_copy(update={"activation_checkpointing": True}))
    assert recomputed == usual


def test_a_batch_in_parts_is_the_whole_batch():
    """For a method without batch norm, which covers only one micro-batch."""
    states = []
    for parts in (1, 2, 4):
        settings = settings_of("pix2pixhd", batch_size=4, accumulate=parts)
        method = build_method(settings)
        state = TrainingState(method, settings, torch.device("cpu"))
        perceptual = load_perceptual(settings.perceptual, None).double()
        state.generator.double(), state.discriminator.double()
        for i, _ in enumerate(through_phases(method, state, settings.training, 3)):
            torch.manual_seed(i)
            pyramids = [[torch.rand(4, 3, 64, 64).double() * 2 - 1] for _ in "st"]
            losses = step(method, state, *pyramids, perceptual, 1e-3, None)
        states.append(({k: p for k, p in state.generator.named_parameters() if p.ndim == 4}, losses))
    for weights, losses in states[1:]:
        assert losses.keys() == states[0][1].keys()
        torch.testing.assert_close(losses, states[0][1], rtol=1e-6, atol=1e-9)
        assert max((weights[k] - p).abs().max().item() for k, p in states[0][0].items()) < 1e-6


def test_an_eager_gradient_is_the_gradient():
    network = VGG19Features(0.0625).double()
    torch.manual_seed(0)
    target = network(torch.rand(1, 3, 32, 32).double())
    image = torch.rand(1, 3, 32, 32).double().requires_grad_()
    loss = lambda x: l1_sum(network(x), target)  # noqa: E731
    (usual,) = torch.autograd.grad(3 * loss(image), image)
    eager = eager_gradient(loss, image)
    assert eager.item() == loss(image).item()
    (gradient,) = torch.autograd.grad(3 * eager, image)
    torch.testing.assert_close(gradient, usual)
    with torch.no_grad():
        assert eager_gradient(loss, image).item() == eager.item()


def test_the_mean_distance_is_torchs():
    a, b = (torch.randn(2, 3, 4, 5).double().requires_grad_() for _ in "ab")
    ours = torch.autograd.grad(l1_sum([a], [b]), (a, b))
    torchs = torch.autograd.grad(torch.nn.functional.l1_loss(a, b), (a, b))
    torch.testing.assert_close(ours, torchs)


def test_too_little_memory_is_reported_before_the_training(tmp_path, data, compute, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda _: 2**20)
    settings = make_settings(data, "msgunet")
    with pytest.raises(
        UserError, match=r"msgunet on negatives needs about \d MiB of memory at 64x64, batch 2, but only 1 MiB is"
    ):
        train(tmp_path / "run", settings, compute)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_free_memory_is_limited_by_the_system_and_its_control_groups(tmp_path, monkeypatch):
    free = memory.free_memory(torch.device("cpu"))
    assert 2**28 < free < 2**50
    monkeypatch.setattr(memory, "_group_limits", lambda: iter([12345]))
    assert memory.free_memory(torch.device("cpu")) == 12345


def test_trainings_side_by_side_take_a_gpu_each(tmp_path, monkeypatch):
    """The choice of the GPU, with simulated GPUs."""
    names = ("aaaa", "bbbb")
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(device, "_held", [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: type("Card", (), {"uuid": names[i]})(), raising=False
    )

    def device_of_new_process() -> str:
        monkeypatch.delenv("MSGUNET_GPU", raising=False)
        return str(device.pick_device(ComputeSettings()))

    assert [device_of_new_process() for _ in range(2)] == ["cuda:0", "cuda:1"]
    assert str(device.pick_device(ComputeSettings())) == "cuda:1", "a process keeps its GPU"
    assert device_of_new_process() == "cuda:0", "GPUs are shared if none is free"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun needs a free GPU for each process, but other processes of yours use"):
        device_of_new_process()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match="torchrun started 3 processes here, but there are only 2 GPUs"):
        device_of_new_process()
    monkeypatch.delenv("MSGUNET_GPU", raising=False)


def test_a_control_groups_limit_counts_the_cache_as_free(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/system/job7\n")
    for name, limit in (("sys/fs/cgroup/system/job7", "1000"), ("sys/fs/cgroup/system", "max")):
        group = tmp_path / name
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("700\n")
        (group / "memory.stat").write_text("anon 400\nactive_file 90\ninactive_file 110\n")
    assert list(memory._group_limits(tmp_path)) == [500]


def test_advice_omits_settings_already_in_use():
    settings = settings_of("msgunet", batch_size=2, precision="bf16", accumulate=2)
    advice = memory.advice(settings, ComputeSettings(activation_checkpointing=True))
    assert advice == "ways to use less memory: a smaller training.batch_size, a smaller size or options.width"
    assert "compute.activation_checkpointing, training.precision bf16" in memory.advice(
        settings_of("pan"), ComputeSettings()
    )


def test_tf32_needs_a_gpu(tmp_path, data, compute):
    settings = make_settings(data, "pix2pix", training=TrainingSettings(precision="tf32"))
    with pytest.raises(UserError, match="tf32 is for CUDA GPUs"):
        train(tmp_path / "run", settings, compute)
