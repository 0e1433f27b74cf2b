"""Each method's losses for given features and scores, against the publications' formulas in numpy."""

import numpy as np
import pytest
import torch
from conftest import make_settings

from msgunet.methods.losses import eager_gradient, l1_sum
from msgunet.methods.registry import build_method

DRAW = np.random.default_rng(0)
SOURCES = "the sources"
ADVERSARIAL = {
    "least_squares": lambda x, real: np.mean((x - real) ** 2),
    "cross_entropy": lambda x, real: np.mean(np.log1p(np.exp(-x if real else x))),
}


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [DRAW.normal(0, 1, shape) for shape in shapes]


def features(scales: int, layers: int) -> list[list[np.ndarray]]:
    """Return features of each scale's layers for a batch of two; the last are the scores."""
    return [arrays(*((2, 2 + k, 8 >> s, 6 >> s) for k in range(layers)), (2, 1, 4, 3)) for s in range(scales)]


def l1(a: np.ndarray, b: np.ndarray) -> float:
    return np.mean(np.abs(a - b))


def losses(name, fake, real, perceptual=None, **options):
    """Return the method's losses where its discriminator and VGG-19 return the given features; and the images."""
    method = build_method(make_settings("unused", name, options={"width": 1, "discriminator_width": 1, **options}))
    outputs, targets = (
        [torch.from_numpy(x) for x in arrays(*((2, 3, 16 >> k, 8 >> k) for k in range(2)))] for _ in "ot"
    )

    def discriminator(sources, images):
        assert sources == SOURCES
        return [[torch.from_numpy(x) for x in scale] for scale in (fake if images is outputs else real)]

    arguments = (discriminator, SOURCES, targets, outputs)
    found = method.generator_losses(*arguments, perceptual) | method.discriminator_losses(*arguments)
    images = [[x.numpy() for x in scales] for scales in (outputs, targets)]
    return {key: float(value) for key, value in found.items()}, *images


class VGG:
    """Stands in for VGG-19: its "features" of layer k are a multiple of the image."""

    def __call__(self, image, layers, normalise=False):
        assert not normalise
        return [image * (layer + 1) for layer in layers]

    def distances(self, image, targets, layers, normalise=False):
        pairs = zip(self(image, layers, normalise), targets, strict=True)
        return torch.stack([(feature - target).abs().mean() for feature, target in pairs])


@pytest.mark.parametrize("adversarial", ["least_squares", "cross_entropy"])
def test_msgunets_objective_is_equation_1(adversarial):
    fake, real = features(2, 4), features(2, 4)
    found, outputs, targets = losses("msgunet", fake, real, VGG(), adversarial=adversarial)
    distance = ADVERSARIAL[adversarial]
    layers = [(f, r) for scale in zip(fake, real, strict=True) for f, r in zip(*scale, strict=True)]
    images = list(zip(outputs, targets, strict=True))
    assert found == pytest.approx(
        {
            "gan": sum(distance(scale[-1], 1) for scale in fake),
            "features": 10 * sum(l1(f, r) for f, r in layers),
            "perceptual": 0.25 * sum((k + 1) * l1(o, t) for o, t in images for k in range(16)),
            "d_fake": 0.5 * sum(distance(scale[-1], 0) for scale in fake),
            "d_real": 0.5 * sum(distance(scale[-1], 1) for scale in real),
        },
        rel=1e-5,
    )


def test_pix2pixs_objective():
    """Isola et al. 2017, equations 1 to 4, non-saturating, with lambda = 100 and half the discriminator's loss."""
    fake, real = features(1, 4), features(1, 4)
    found, outputs, targets = losses("pix2pix", fake, real)
    distance = ADVERSARIAL["cross_entropy"]
    assert found == pytest.approx(
        {
            "gan": distance(fake[0][-1], 1),
            "l1": 100 * sum(l1(o, t) for o, t in zip(outputs, targets, strict=True)),
            "d_fake": 0.5 * distance(fake[0][-1], 0),
            "d_real": 0.5 * distance(real[0][-1], 1),
        },
        rel=1e-5,
    )


def test_pix2pixhds_objective():
    """As in the published code: features times 10 and 1 / scales; VGG times 10, with weights that double by layer."""
    fake, real = features(3, 4), features(3, 4)
    found, outputs, targets = losses("pix2pixhd", fake, real, VGG())
    distance = ADVERSARIAL["least_squares"]
    layers = [(f, r) for scale in zip(fake, real, strict=True) for f, r in list(zip(*scale, strict=True))[:-1]]
    # relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 follow the convolutions 1, 3, 5, 9 and 13.
    weights = {1: 1 / 32, 3: 1 / 16, 5: 1 / 8, 9: 1 / 4, 13: 1}
    assert found == pytest.approx(
        {
            "gan": sum(distance(scale[-1], 1) for scale in fake),
            "features": 10 / 3 * sum(l1(f, r) for f, r in layers),
            "perceptual": 10 * sum(w * n for n, w in weights.items()) * l1(outputs[0], targets[0]),
            "d_fake": 0.5 * sum(distance(scale[-1], 0) for scale in fake),
            "d_real": 0.5 * sum(distance(scale[-1], 1) for scale in real),
        },
        rel=1e-5,
    )


def test_pans_objective():
    fake, real = features(1, 4), features(1, 4)
    for layer in (*fake[0], *real[0]):
        layer[0] /= 2
    margin = 12.0
    found, *_ = losses("pan", fake, real, margin=margin)
    distance = ADVERSARIAL["cross_entropy"]
    layers = list(zip((5, 1.5, 1.5, 5), fake[0], real[0], strict=False))
    of_images = [sum(w * l1(f[n], r[n]) for w, f, r in layers) for n in range(2)]
    assert min(of_images) < margin < max(of_images), "one image is within the margin"
    assert found == pytest.approx(
        {
            "gan": distance(fake[0][-1], 1),
            "perceptual": np.mean(of_images),
            "d_fake": 0.5 * distance(fake[0][-1], 0),
            "d_real": 0.5 * distance(real[0][-1], 1),
            "d_margin": np.mean([max(0, margin - d) for d in of_images]),
        },
        rel=1e-5,
    )


def test_gradients_of_distances_are_torchs():
    a, b = (torch.randn(2, 3, 5, 4, dtype=torch.double).requires_grad_() for _ in "ab")
    weights = torch.tensor(2.5, dtype=torch.double)
    ours = torch.autograd.grad(weights * l1_sum([a, a], [b, b * 2]), (a, b))
    theirs = torch.autograd.grad(
        weights * (torch.nn.functional.l1_loss(a, b) + torch.nn.functional.l1_loss(a, b * 2)), (a, b)
    )
    assert all(torch.allclose(x, y) for x, y in zip(ours, theirs, strict=True))
    # Only the first has a gradient, as for a target.
    assert torch.autograd.grad(l1_sum([a], [b.detach()]), a)[0].abs().max() == pytest.approx(1 / a.numel())
    # The order does not matter.
    assert torch.equal(torch.autograd.grad(l1_sum([b.detach()], [a]), a)[0], torch.sign(a - b) / a.numel())
    (eager,) = torch.autograd.grad(weights * eager_gradient(lambda x: (x**3).sum(), a), a)
    assert torch.allclose(eager, weights * 3 * a**2)


def test_an_eager_gradient_keeps_no_graph_and_is_not_computed_without_need():
    weight, image = (torch.randn(4).requires_grad_() for _ in "wi")
    seen = []

    def loss(x):
        seen.append((x.is_leaf, torch.is_grad_enabled()))
        return (weight * x).sum()

    value = eager_gradient(loss, image * 2)
    assert value.item() == pytest.approx((weight * image * 2).sum().item())
    assert seen.pop() == (True, True), "the graph ends at the image"
    with torch.no_grad():
        assert eager_gradient(loss, image * 2) == value
        assert eager_gradient(loss, image) == value / 2
    assert [enabled for _, enabled in seen] == [False, False]
    # An image without gradient leaves those of others alone.
    (gradient,) = torch.autograd.grad(eager_gradient(loss, image.detach()), weight)
    assert torch.equal(gradient, image)
