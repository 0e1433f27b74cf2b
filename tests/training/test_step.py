"""One training step: compared with a naive loop, in bf16, with values that are not finite, and its order."""

import pytest
import torch
from conftest import ADVERSARIAL, TRAINABLE, make_settings, train
from torch.nn.utils.parametrize import ParametrizationList

from msgunet.core.errors import UserError
from msgunet.core.settings import TrainingSettings
from msgunet.methods.method import Method
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.training import loop, step
from msgunet.training.checkpoint import checkpoints
from msgunet.training.state import TrainingState, checkpoint_folder


@pytest.mark.parametrize(
    ("capability", "precision", "width", "expected"),
    [
        ("AVX2", "fp32", 0.5, torch.contiguous_format),
        ("AVX2", "fp32", 0.0625, torch.channels_last),
        ("AVX2", "bf16", 0.5, torch.channels_last),
        ("AVX512", "fp32", 0.5, torch.channels_last),
    ],
)
def test_wide_networks_train_in_contiguous_memory_where_that_is_faster(
    monkeypatch, capability, precision, width, expected
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    training = TrainingSettings(epochs=1, decay_epochs=0, precision=precision)
    settings = make_settings("unused", options={"width": width, "discriminator_width": width}, training=training)
    state = TrainingState(build_method(settings), settings, torch.device("cpu"))
    assert state.layout == expected
    convolutions = [p for n in (state.generator, state.discriminator) for p in n.parameters() if p.ndim == 4]
    weights = [p for p in convolutions if p.shape[2] > 1 < p.shape[1]]
    assert weights
    assert all(p.is_contiguous(memory_format=expected) for p in weights)


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize(("name", "log_steps"), [("pix2pix", 1), ("msgunet", 50)])
def test_a_value_that_is_not_finite_changes_no_weight_and_stops(
    tmp_path, data, compute, monkeypatch, where, network, name, log_steps
):
    """The training stops immediately if every step is logged, otherwise before anything is saved."""
    settings = make_settings(data, name, training=TrainingSettings(epochs=3, decay_epochs=0, batch_size=2))
    term = {"generator": "gan", "discriminator": "d_real"}[network]
    one_step, unchanged = loop.step, []

    def watch(method, state, *rest):
        if state.step == 2 and where == "gradient":
            next(getattr(state, network).parameters()).register_hook(lambda g: g * float("nan"))
        if state.step == 2 and where == "loss":
            losses = getattr(method, f"{network}_losses")
            poisoned = lambda *a: (terms := losses(*a)) | {term: terms[term] * float("nan")}  # noqa: E731
            setattr(method, f"{network}_losses", poisoned)
        before = [p.detach().clone() for p in getattr(state, network).parameters()]
        result = one_step(method, state, *rest)
        after = getattr(state, network).parameters()
        unchanged.append(all(torch.equal(a, b) for a, b in zip(before, after, strict=True)))
        return result

    monkeypatch.setattr(loop, "step", watch)
    reported = f"{term} = nan" if where == "loss" else f"gradient_{network} = nan"
    often = compute.model_copy(update={"log_steps": log_steps, "checkpoint_minutes": 1e-9, "sample_epochs": 100})
    with pytest.raises(UserError, match=rf"step 3: a loss or gradient is not finite \(.*{reported}"):
        train(tmp_path / "run", settings, often)
    assert unchanged == [False, False, True]
    assert [step for _, step in checkpoints(checkpoint_folder(tmp_path / "run", settings))] == [2, 1]
    assert not (tmp_path / "run" / "generator.safetensors").exists()


def naive_step(method, state, sources, targets, perceptual, rate):
    """A naive update, in which every loss has separate passes. An independent check of `step`."""
    outputs = state.generator(sources)
    targets = targets[: len(outputs)]

    def update(network, losses, inputs):
        optimizer = state.optimizers[network]
        for group in optimizer.param_groups:
            group["lr"] = rate * method.rates.get(network, 1)
        gradients = torch.autograd.grad(sum(losses.values()), inputs, allow_unused=True)
        for parameter, gradient in zip(inputs, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    def update_discriminator():
        detached = [output.detach() for output in outputs]
        losses = method.discriminator_losses(state.discriminator, sources, targets, detached)
        update("discriminator", losses, list(state.discriminator.parameters()))

    def update_generator():
        losses = method.generator_losses(state.discriminator, sources, targets, outputs, perceptual)
        update("generator", losses, list(state.generator.parameters()))

    order = (update_generator, update_discriminator)
    for function in order if method.generator_first else order[::-1]:
        function()


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_a_step_equals_that_of_a_naive_loop(name):
    settings = make_settings("unused", name)
    method = build_method(settings)
    perceptual = load_perceptual(settings.perceptual, None).double() if settings.perceptual else None
    scales = method.scales(method.options, settings.size)
    states = [TrainingState(method, settings, torch.device("cpu")) for _ in range(2)]
    for network in (network for state in states for network in (state.generator, state.discriminator)):
        network.double()
        for layer in network.modules():
            # Spectral norm changes with every training pass, and the naive loop has more passes.
            if isinstance(layer, ParametrizationList):
                layer.eval()
    for i in range(3):
        torch.manual_seed(i)
        pyramids = [[torch.rand(2, 3, 64 >> k, 64 >> k).double() * 2 - 1 for k in range(scales)] for _ in "st"]
        for state, function in zip(states, (lambda *a: step.step(*a, None), naive_step), strict=True):
            torch.manual_seed(i)
            function(method, state, *pyramids, perceptual, 1e-3)
    for network in ("generator", "discriminator"):
        pairs = zip(*(getattr(state, network).named_parameters() for state in states), strict=True)
        # The gradients of biases before a norm are rounding errors, which Adam amplifies.
        worst = {name: (a - b).abs().max().item() for (name, a), (_, b) in pairs if a.ndim == 4}
        assert max(worst.values()) < 1e-6, worst


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_step_in_bf16_is_that_of_fp32_within_its_precision(name):
    """Weights, losses and gradients stay in 32 bits; the losses and the gradients' direction are nearly the same."""
    found = []
    for precision in ("fp32", "bf16"):
        settings = make_settings("unused", name, training=TrainingSettings(precision=precision))
        method = build_method(settings)
        state = TrainingState(method, settings, torch.device("cpu"))
        perceptual = load_perceptual(settings.perceptual, None) if settings.perceptual else None
        scales = method.scales(method.options, settings.size)
        torch.manual_seed(0)
        pyramids = [[torch.rand(4, 3, 64 >> k, 64 >> k) * 2 - 1 for k in range(scales)] for _ in "st"]
        torch.manual_seed(1)
        losses = step.step(method, state, *pyramids, perceptual, 1e-3, None)
        weights = [p for network in (state.generator, state.discriminator) for p in network.parameters()]
        kinds = {v.dtype for v in (*losses.values(), *weights, *(p.grad for p in weights if p.grad is not None))}
        assert kinds == {torch.float32}
        direction = torch.cat([p.grad.flatten() for p in weights if p.ndim == 4 and p.grad is not None])
        found.append(({key: value.item() for key, value in losses.items()}, direction))
    (exact, along), (rough, nearly) = found
    assert rough == pytest.approx(exact, rel=0.05)
    assert rough != exact
    assert torch.nn.functional.cosine_similarity(along, nearly, 0) > 0.9


@pytest.mark.parametrize(("name", "passes"), [("msgunet", 2), ("pix2pixhd", 2), ("pix2pix", 3), ("pan", 4)])
def test_the_discriminator_judges_nothing_twice(name, passes):
    """Pix2Pix-HD's order: one pass each for output and target. Pix2Pix's: the discriminator changes in between."""
    settings = make_settings("unused", name)
    method = build_method(settings)
    state = TrainingState(method, settings, torch.device("cpu"))
    perceptual = load_perceptual(settings.perceptual, None) if settings.perceptual else None
    scales = method.scales(method.options, settings.size)
    calls = []
    state.discriminator.register_forward_hook(lambda *_: calls.append(None))
    images = [torch.rand(2, 3, 64 >> k, 64 >> k) for k in range(scales)]
    step.step(method, state, images, [1 - image for image in images], perceptual, 1e-3, None)
    assert len(calls) == passes


class _Odd(Method):
    """Unusual losses of a custom method: features without gradients, modified lists, and a penalty on the weights."""

    generator_first = True

    def __init__(self, inner):
        super().__init__(inner.options, inner.size)
        self.inner, self.generator = inner, None

    def generator_losses(self, discriminator, sources, targets, outputs, perceptual):
        with torch.no_grad():
            real = discriminator(sources, targets)
        fake = discriminator(sources, outputs)
        scores = [scale.pop() for scale in fake]
        features = sum(
            (f - r).abs().mean() for a, b in zip(fake, real, strict=True) for f, r in zip(a, b, strict=False)
        )
        penalty = sum(p.square().sum() for p in self.generator.parameters())
        return {"gan": sum((s - 1).square().mean() for s in scores), "features": features, "penalty": 0.1 * penalty}

    def discriminator_losses(self, *arguments):
        return self.inner.discriminator_losses(*arguments)


@pytest.mark.parametrize("frozen", ["nothing", "all but a head", "the generator", "the discriminator"])
def test_a_step_with_losses_as_others_write_them(frozen):
    """The result equals that of a naive loop, also if parts are frozen."""
    settings = make_settings("unused", "msgunet")
    states, methods = [], []
    for _ in range(2):
        method = _Odd(build_method(settings))
        state = TrainingState(method.inner, settings, torch.device("cpu"))
        method.generator = state.generator.double()
        state.discriminator.double()
        if frozen in ("all but a head", "the generator"):
            state.generator.requires_grad_(False)
            state.generator.heads[0].requires_grad_(frozen == "all but a head")
        if frozen == "the discriminator":
            state.discriminator.requires_grad_(False)
        states.append(state)
        methods.append(method)
    torch.manual_seed(0)
    pyramids = [[torch.rand(2, 3, 64 >> k, 64 >> k).double() * 2 - 1 for k in range(2)] for _ in "st"]
    before = [p.detach().clone() for p in states[0].generator.parameters()]
    losses = step.step(methods[0], states[0], *pyramids, None, 1e-3, None)
    assert (losses["gradient_discriminator"] == 0) == (frozen == "the discriminator")
    assert (losses["gradient_generator"] == 0) == (frozen == "the generator")
    same = [torch.equal(a, b) for a, b in zip(before, states[0].generator.parameters(), strict=True)]
    assert all(same) == (frozen == "the generator")
    if frozen == "nothing":
        naive_step(methods[1], states[1], *pyramids, None, 1e-3)
        for network in ("generator", "discriminator"):
            pairs = zip(*(getattr(state, network).parameters() for state in states), strict=True)
            assert max((a - b).abs().max().item() for a, b in pairs if a.ndim == 4) < 1e-6


@pytest.mark.parametrize(
    ("name", "first", "options"),
    [
        ("pix2pix", "discriminator", {}),
        ("pan", "discriminator", {}),
        ("pix2pixhd", "generator", {}),
        ("msgunet", "generator", {}),
        ("msgunet", "discriminator", {"generator_first": False}),
    ],
)
def test_the_order_of_updates(tmp_path, data, compute, monkeypatch, name, first, options):
    order, update = [], step._update

    def watch(state, network, *rest):
        order.append(network)
        return update(state, network, *rest)

    monkeypatch.setattr(step, "_update", watch)
    train(tmp_path / "run", make_settings(data, name, options=options), compute)
    assert order[0] == first
    assert order[:-2] == order[2:]
