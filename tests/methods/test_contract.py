"""The contract of every method: the registered ones, so that a new one is tested automatically, and custom ones.

`MSGUNET_SUITE=my.yaml python -m pytest tests/methods/test_contract.py -k NAME` tests a suite's entry that names a file.
"""

import copy

import pytest
import torch
from conftest import ADVERSARIAL, FILES, METHOD_OF, NARROW, TRAINABLE, make_settings, method_class, through_phases
from safetensors.torch import load_file

from msgunet.core.settings import Network, TrainingSettings
from msgunet.cost.count import counts
from msgunet.data.pairs import keyed_seed
from msgunet.methods.generator import load_generator, save_generator
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.training.state import TrainingState
from msgunet.training.step import step as one_step

METHODS = list(METHOD_OF)
SIZES = [(64, 64), (128, 64), (64, 192)]


def batch(method, size, count=2, seed=0):
    """Random pyramids of sources and targets."""
    generator = torch.Generator().manual_seed(seed)
    scales = method.scales(method.options, size)
    shapes = [(count, 3, size[1] >> k, size[0] >> k) for k in range(scales)]
    return tuple([torch.rand(shape, generator=generator) * 2 - 1 for shape in shapes] for _ in "st")


def state_of(name, size=(64, 64), **changes):
    settings = make_settings("unused", name, size, **changes)
    method = build_method(settings)
    state = TrainingState(method, settings, torch.device("cpu"))
    perceptual = load_perceptual(settings.perceptual, None) if settings.perceptual else None
    return settings, method, state, perceptual


def steps(name, count, **changes):
    """Return the losses of `count` steps in each phase, on one batch, and the state after them."""
    settings, method, state, perceptual = state_of(name, **changes)
    pyramids = batch(method, (64, 64))
    losses = []
    for phase in through_phases(method, state, settings.training, count * len(method.phases(settings.training))):
        sources, targets = (method.view(phase, images, "photo") for images in pyramids)
        terms = one_step(method, state, sources, targets, perceptual, 1e-3, None)
        losses.append({k: v.item() for k, v in terms.items()})
        state.step += 1
    return losses, state


@pytest.mark.parametrize("size", SIZES, ids=lambda s: "{}x{}".format(*s))
@pytest.mark.parametrize("name", METHODS)
def test_outputs_have_the_right_shapes_and_range(name, size):
    method = build_method(make_settings("unused", name, size))
    assert method.problem(method.options, size) is None
    sources, _ = batch(method, size)
    with torch.inference_mode():
        outputs = method.build_generator()(sources)
    count = 1 if name == "msgunet_single" else len(sources)
    assert [o.shape for o in outputs] == [s.shape for s in sources[:count]]
    assert all(torch.isfinite(o).all() and o.abs().max() <= 1 for o in outputs)


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_size_that_does_not_fit_is_a_problem_with_a_size_that_does(name):
    method = method_class(name)
    options = method.Options.model_validate(NARROW.get(name, {}))
    stride = method.stride(options, (64, 64))
    if stride == 1:
        pytest.skip("every size fits")
    problem = method.problem(options, (64 + stride // 2, 64))
    assert problem is not None
    width, height = (int(v) for v in problem.split("; ")[1].split()[0].split("x"))
    assert method.problem(options, (width, height)) is None


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_step_of_each_phase_changes_every_trainable_parameter(name):
    settings, method, state, perceptual = state_of(name)
    networks = (state.generator, state.discriminator)
    moved = [set(), set()]
    for phase in through_phases(method, state, settings.training, len(method.phases(settings.training))):
        before = [copy.deepcopy(network.state_dict()) for network in networks]
        sources, targets = (method.view(phase, images, "photo") for images in batch(method, (64, 64)))
        one_step(method, state, sources, targets, perceptual, 1e-3, None)
        for old, network, changed in zip(before, networks, moved, strict=True):
            now = {key for key, parameter in network.named_parameters() if not torch.equal(old[key], parameter)}
            assert now or not old, f"{phase.name} trains nothing"
            changed |= now
            if name in FILES:
                # The hinge loss of a batch within the margin, which no built-in method uses, does not depend on the
                # scores' bias.
                gradients = {key: p.grad for key, p in network.named_parameters() if p.numel() == 1}
                changed |= {key for key, gradient in gradients.items() if gradient is not None and not gradient.any()}
    assert moved == [{key for key, _ in network.named_parameters()} for network in networks]


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_generators_step_leaves_no_gradient_in_the_discriminator(name):
    """At the generator's update, the discriminator has only the gradients of its own loss."""
    _, method, state, perceptual = state_of(name)
    sources, targets = batch(method, (64, 64))
    seen = []

    def gradients(network):
        return [p.grad.clone() for p in network.parameters()]

    state.optimizers["generator"].register_step_pre_hook(lambda *_: seen.extend(gradients(state.discriminator)))
    torch.manual_seed(0)
    one_step(method, state, sources, targets, perceptual, 1e-3, None)
    _, _, twin, _ = state_of(name)
    torch.manual_seed(0)
    outputs = [output.detach() for output in twin.generator(sources)]
    sum(method.discriminator_losses(twin.discriminator, sources, targets, outputs).values()).backward()
    expected = gradients(twin.discriminator)
    assert len(seen) == len(expected)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(seen, expected, strict=True))
    assert all(p.requires_grad for p in state.discriminator.parameters())


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_same_seed_gives_the_same_losses_and_another_seed_others(name):
    assert steps(name, 3)[0] == steps(name, 3)[0]
    assert steps(name, 1)[0] != steps(name, 1, seed=1)[0]


@pytest.mark.parametrize("name", TRAINABLE)
def test_it_overfits_one_pair(name):
    training = TrainingSettings(learning_rate=1e-3)
    _, method, state, perceptual = state_of(name, training=training)
    sources, _ = batch(method, (64, 64))
    targets = [torch.full_like(s, 0.5) for s in sources]
    distances = []
    for _ in range(40):
        one_step(method, state, sources, targets, perceptual, 1e-3, None)
        state.step += 1
        with torch.no_grad():
            distances.append((state.generator(sources)[0] - targets[0]).abs().mean().item())
    assert min(distances[-5:]) < 0.6 * distances[0]


@pytest.mark.parametrize("name", METHODS)
def test_a_published_generator_comes_back_the_same(name, tmp_path):
    settings = make_settings("unused", name)
    method = build_method(settings)
    network = method.build_training_generator().to(memory_format=torch.channels_last)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.1, 0.9)
    published = method.published_state(network.state_dict())
    save_generator(tmp_path / "g.safetensors", published, settings)
    loaded = load_generator(tmp_path / "g.safetensors", torch.device("cpu"))
    assert loaded.settings == settings
    stored = load_file(tmp_path / "g.safetensors")
    assert stored.keys() - {"empty"} == published.keys()
    assert all(torch.equal(value, stored[key]) for key, value in published.items())
    sources = [source.contiguous(memory_format=torch.channels_last) for source in batch(method, (64, 64), count=1)[0]]
    method.prepare_inference(network)
    torch.manual_seed(keyed_seed(settings.seed, "inference", "key"))
    expected = network(sources)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(loaded(sources, "key"), expected, strict=True))


@pytest.mark.parametrize("name", TRAINABLE)
def test_its_cost_can_be_counted(name):
    settings = make_settings("unused", name)
    values = {"method": settings.method, "size": (64, 64), "options": settings.options, "used": True}
    values |= {"file": settings.file, "code": settings.code}
    parts = ("generator", "discriminator") if name in ADVERSARIAL else ("generator",)
    rows = [counts(Network(entry=name, part=part, **values)) for part in parts]
    assert rows[0]["gmac_fvcore"] == pytest.approx(rows[0]["gmac"], rel=1e-3)
    assert min(row[key] for row in rows for key in ("parameters", "gmac")) > 0


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", TRAINABLE)
def test_the_memorys_layout_changes_no_gradient(name, count):
    """On the CPU, torch 2.11's instance norm has wrong gradients for one image in channels-last memory."""
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        _, method, state, _ = state_of(name)
        networks = [n.double().to(memory_format=layout) for n in (state.generator, state.discriminator)]
        for layer in networks[0].modules():
            # Dropout draws its mask in memory order.
            layer.train(not isinstance(layer, torch.nn.Dropout))
        pyramids = batch(method, (64, 64), count)
        sources, images = ([x.double().contiguous(memory_format=layout) for x in levels] for levels in pyramids)
        outputs = networks[0](sources)
        scores = networks[1](sources, images) if name in ADVERSARIAL else []
        layers = [layer for scale in scores for layer in scale]
        # Not the plain sum: no weight before a norm changes the sum of the norm's outputs.
        sum(x.square().mul(torch.linspace(0, 1, x.shape[-1])).sum() for x in (*outputs, *layers)).backward()
        gradients.append({key: p.grad for n in networks for key, p in n.named_parameters() if p.grad is not None})
    one, other = gradients
    assert one.keys() == other.keys()
    wrong = [key for key in one if not torch.allclose(one[key], other[key], rtol=1e-6, atol=1e-9)]
    assert not wrong
