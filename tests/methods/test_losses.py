"""Losses: which weights they reach, when they are zero, which settings change them, and their VGG-19."""

import dataclasses

import pytest
import torch
import torchvision
from conftest import ADVERSARIAL, make_settings
from losses_of import step_losses

from msgunet.core.errors import UserError
from msgunet.core.files import sha256_file
from msgunet.core.settings import PerceptualSettings
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.methods.weights import VGG19


def test_untrained_vgg19_is_the_same_every_time():
    settings = make_settings("unused").perceptual
    one, other = (load_perceptual(settings, None) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not any(p.requires_grad for p in one.parameters())


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_losses_reach_all_of_their_own_network_and_nothing_else(name):
    method, generator, discriminator, sources, targets, perceptual = step_losses(name)
    outputs = generator(sources)
    discriminator.requires_grad_(False)
    sum(method.generator_losses(discriminator, sources, targets, outputs, perceptual).values()).backward()
    # A bias before a norm that subtracts the mean has only rounding errors as its gradient, but a gradient exists.
    assert all(p.grad is not None for p in generator.parameters())
    assert sum(p.grad.abs().sum() for p in generator.parameters()) > 0
    generator.zero_grad(set_to_none=True)
    discriminator.requires_grad_(True)
    detached = [o.detach() for o in outputs]
    sum(method.discriminator_losses(discriminator, sources, targets, detached).values()).backward()
    assert all(p.grad is not None for p in discriminator.parameters())
    assert all(p.grad is None for p in generator.parameters())


@pytest.mark.parametrize("name", ["msgunet", "pix2pixhd", "pan"])
def test_distances_are_zero_for_the_target_itself(name):
    method, _, discriminator, sources, targets, perceptual = step_losses(name)
    losses = method.generator_losses(discriminator, sources, targets, targets, perceptual)
    distances = {k: v.item() for k, v in losses.items() if k != "gan"}
    assert distances
    assert max(distances.values()) < 1e-6


@pytest.mark.parametrize("name", ["msgunet", "pix2pixhd", "pan"])
def test_each_distance_alone_moves_the_generator(name):
    method, generator, discriminator, sources, targets, perceptual = step_losses(name)
    discriminator.requires_grad_(False)
    losses = method.generator_losses(discriminator, sources, targets, generator(sources), perceptual)
    for term in losses.keys() - {"gan"}:
        generator.zero_grad(set_to_none=True)
        losses[term].backward(retain_graph=True)
        weights = [p for p in generator.parameters() if p.ndim == 4]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in weights), term


def changed_by(network, loss):
    """Return the number of convolution weights that a plain gradient step on `loss` changes, and their total number."""
    weights = [p for p in network.parameters() if p.ndim == 4]
    before = [p.detach().clone() for p in weights]
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return sum(not torch.equal(a, b) for a, b in zip(before, weights, strict=True)), len(weights)


def test_pans_perceptual_term_alone_moves_the_generator():
    method, generator, discriminator, sources, targets, _ = step_losses("pan")
    losses = method.generator_losses(discriminator, sources, targets, generator(sources), None)
    moved, weights = changed_by(generator, losses["perceptual"])
    assert moved == weights


def test_pans_margin_term_alone_moves_the_discriminator_and_ends_at_the_margin():
    method, generator, discriminator, sources, targets, _ = step_losses("pan")
    outputs = [o.detach() for o in generator(sources)]
    distance = method.distance(discriminator(sources, outputs)[0], discriminator(sources, targets)[0])
    near, far = distance.min().item(), distance.max().item()

    def margin_loss(margin):
        changed = build_method(make_settings("unused", "pan", options={"margin": margin}))
        return changed.discriminator_losses(discriminator, sources, targets, outputs)["d_margin"]

    beyond = margin_loss(near * 0.99)
    assert beyond.item() == 0
    beyond.backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in discriminator.parameters())
    # Of two images, only the one within the margin counts, regardless of the other's distance.
    margin = (near + far) / 2
    within = margin_loss(margin)
    assert within.item() == pytest.approx((margin - near) / 2, rel=1e-3)
    moved, weights = changed_by(discriminator, within)
    assert moved == weights - 1, "all except the convolution of the scores"


@pytest.mark.parametrize(
    ("option", "value", "moves"),
    [
        ("adversarial", "cross_entropy", {"gan", "d_fake", "d_real"}),
        ("vgg_layers", [0, 2], {"perceptual"}),
        ("discriminator_weight", 1.0, {"d_fake", "d_real"}),
    ],
)
def test_each_open_choice_moves_its_own_losses(option, value, moves):
    _, generator, discriminator, sources, targets, perceptual = step_losses("msgunet")
    outputs = [o.detach() for o in generator(sources)]

    def terms(**options):
        method = build_method(make_settings("unused", options=options))
        arguments = (discriminator, sources, targets, outputs)
        return method.generator_losses(*arguments, perceptual) | method.discriminator_losses(*arguments)

    default, other = terms(), terms(**{option: value})
    assert {name for name in default if default[name] != other[name]} == moves


@pytest.mark.parametrize("name", ["msgunet", "pix2pixhd"])
def test_vgg_sees_each_target_once_a_step_and_without_gradient(name):
    method, generator, discriminator, sources, targets, perceptual = step_losses(name)
    seen = []
    perceptual.features[1].register_forward_hook(lambda _, __, output: seen.append(output.requires_grad))
    method.generator_losses(discriminator, sources, targets, generator(sources), perceptual)
    scales = len(targets)
    assert sorted(seen) == [False] * scales + [True] * scales


def test_vgg19_accepts_only_torchvisions_file(tmp_path, monkeypatch):
    with torch.device("meta"):
        theirs = torchvision.models.vgg19(weights=None).features
    theirs.to_empty(device="cpu")
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, 0, (2 / weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.1)
    path = tmp_path / "vgg19.pth"
    of_features = {f"features.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({**of_features, "classifier.6.bias": torch.zeros(1000)}, path)
    settings = PerceptualSettings()
    with pytest.raises(UserError, match="expected dcbb9e9d"):
        load_perceptual(settings, path)
    with pytest.raises(UserError, match="VGG-19 weights not found"):
        load_perceptual(settings, tmp_path / "missing.pth")
    accepted = dataclasses.replace(VGG19, checksum=f"sha256:{sha256_file(path)[:8]}")
    monkeypatch.setattr("msgunet.methods.vgg19.VGG19", accepted)
    ours = load_perceptual(settings, path)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    normalised = torchvision.transforms.functional.normalize(
        image * 0.5 + 0.5, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    with torch.inference_mode():
        expected = theirs[:36](normalised)
        assert expected.std() > 0.1
        assert torch.allclose(ours(image)[-1], expected, atol=1e-5)


def test_sums_or_means_over_layers_and_scales():
    method, generator, discriminator, sources, targets, perceptual = step_losses("msgunet")
    outputs = generator(sources)
    means = build_method(make_settings("unused", options={"sums": "mean"}))
    summed = method.generator_losses(discriminator, sources, targets, outputs, perceptual)
    averaged = means.generator_losses(discriminator, sources, targets, outputs, perceptual)
    scales, layers = 2, {"gan": 1, "features": 5, "perceptual": 16}
    for term, count in layers.items():
        assert summed[term].item() == pytest.approx(averaged[term].item() * scales * count, rel=1e-5)
