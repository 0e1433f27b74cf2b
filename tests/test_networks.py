"""Networks and losses: the published sizes, and what gradients reach."""

import dataclasses

import pytest
import torch
import torchvision
from conftest import TRAINABLE, make_settings
from torch.utils.flop_counter import FlopCounterMode

from baselines.networks import GlobalGenerator, LocalEnhancer, UNet
from msgunet.config import PerceptualSettings
from msgunet.data.fetch import VGG19
from msgunet.errors import UserError
from msgunet.files import sha256_file
from msgunet.losses import VGG19Features, load_perceptual
from msgunet.networks import MSGUNet, PatchGAN
from msgunet.registry import build_method

WIDTHS = (64, 64, 128, 256, 512, 512, 512, 512, 512)


def pyramid(channels, height, width, scales=1):
    return [torch.zeros(1, channels, height >> k, width >> k) for k in range(scales)]


# Parameters and GMAC counted independently, from the published code bases.
@pytest.mark.parametrize(
    ("build", "height", "width", "scales", "parameters", "gmac"),
    [
        (lambda: UNet(8), 256, 256, 1, 54_413_955, 6.048),
        (lambda: GlobalGenerator(64), 256, 256, 1, 182_443_267, 54.383),
        (lambda: GlobalGenerator(64), 512, 512, 1, 182_443_267, 217.533),
        (lambda: GlobalGenerator(64), 1024, 2048, 1, 182_443_267, 1740.267),
        (lambda: GlobalGenerator(64, 3), 1024, 2048, 1, 45_593_347, 1662.958),
        (lambda: LocalEnhancer(32), 1024, 2048, 1, 182_701_827, 585.156),
        (lambda: MSGUNet(WIDTHS, 5), 1024, 2048, 5, 57_875_279, 638.751),
        (lambda: MSGUNet(WIDTHS[1:], 4), 512, 512, 4, 57_672_140, 159.405),
    ],
    ids=[
        "pix2pix",
        "hd-global",
        "hd-global-512",
        "hd-global-2048",
        "hd-global-3",
        "hd-local",
        "msgunet-2048",
        "msgunet-512",
    ],
)
def test_generators_have_the_published_size(build, height, width, scales, parameters, gmac):
    with torch.device("meta"):
        network = build().eval()
        with FlopCounterMode(display=False) as counter:
            outputs = network(pyramid(3, height, width, scales))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=1e-3)
    assert [tuple(o.shape) for o in outputs] == [(1, 3, height >> k, width >> k) for k in range(scales)]


@pytest.mark.parametrize(
    ("options", "parameters", "gmac"),
    [({}, 2_768_705, 3.197), ({"norm": "instance", "padding": 2}, 2_767_809, 3.661)],
)
def test_discriminators_have_the_published_size(options, parameters, gmac):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = PatchGAN(6, 64, **options)
        network(torch.zeros(1, 6, 256, 256))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=1e-3)


def test_vgg19_has_the_published_size_and_stops_at_the_last_layer_asked_for():
    with torch.device("meta"):
        network = VGG19Features()
        with FlopCounterMode(display=False) as whole:
            network(torch.zeros(1, 3, 256, 256))
        with FlopCounterMode(display=False) as start:
            found = network(torch.zeros(1, 3, 256, 256), (0, 2))
    assert sum(p.numel() for p in network.parameters()) == 20_024_384
    assert whole.get_total_flops() / 2e9 == pytest.approx(25.480, rel=1e-3)
    assert [f.shape[1] for f in found] == [64, 128]
    assert start.get_total_flops() < 0.3 * whole.get_total_flops()


def test_untrained_vgg19_is_the_same_every_time():
    settings = make_settings("unused").perceptual
    one, other = (load_perceptual(settings, None) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not any(p.requires_grad for p in one.parameters())


def step_losses(name, seed=0):
    """Losses of a narrow method on random pictures, with its networks."""
    torch.manual_seed(seed)
    method = build_method(make_settings("unused", name))
    generator, discriminator = method.build_generator(), method.build_discriminator()
    scales = method.scales(method.options, method.size)
    sources, targets = ([torch.rand(2, 3, 64 >> k, 64 >> k) * 2 - 1 for k in range(scales)] for _ in "st")
    settings = make_settings("unused", name).perceptual
    perceptual = load_perceptual(settings, None) if settings else None
    return method, generator, discriminator, sources, targets, perceptual


@pytest.mark.parametrize("name", TRAINABLE)
def test_outputs_have_the_sources_sizes_and_range(name):
    _, generator, _, sources, *_ = step_losses(name)
    outputs = generator(sources)
    assert [o.shape for o in outputs] == [s.shape for s in sources]
    assert all(o.abs().max() <= 1 for o in outputs)


@pytest.mark.parametrize("name", TRAINABLE)
def test_losses_reach_all_of_their_own_network_and_nothing_else(name):
    method, generator, discriminator, sources, targets, perceptual = step_losses(name)
    outputs = generator(sources)
    discriminator.requires_grad_(False)
    sum(method.generator_losses(discriminator, sources, targets, outputs, perceptual).values()).backward()
    # A bias in front of a norm that takes the mean away has no gradient but rounding errors, but it has one.
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
    found = method.generator_losses(discriminator, sources, targets, generator(sources), perceptual)
    for term in found.keys() - {"gan"}:
        generator.zero_grad(set_to_none=True)
        found[term].backward(retain_graph=True)
        weights = [p for p in generator.parameters() if p.ndim == 4]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in weights), term


def changed_by(network, loss):
    """The convolution weights that a step of plain gradient descent on `loss` changes, and how many there are."""
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
    # Of two pictures, the one within the margin counts, whatever the other one's distance.
    margin = (near + far) / 2
    within = margin_loss(margin)
    assert within.item() == pytest.approx((margin - near) / 2, rel=1e-3)
    moved, weights = changed_by(discriminator, within)
    assert moved == weights - 1, "all but the scores' own convolution"


def test_patchgan_sees_70_pixels():
    """Measured by changing the pixels of one row and one column: 70 in a line move a score, none beyond them."""
    torch.manual_seed(0)
    network = PatchGAN(1, 4).double().eval()
    image = torch.rand(1, 1, 192, 192, dtype=torch.float64)
    with torch.inference_mode():
        score = network(image)[-1][0, 0]
        row = score.shape[0] // 2

        def changes(y, x):
            other = image.clone()
            other[0, 0, y, x] += 10
            return bool(network(other)[-1][0, 0, row, row] != score[row, row])

        rows = [y for y in range(192) if changes(y, 96)]
        columns = [x for x in range(192) if changes(96, x)]
    assert (len(rows), rows[-1] - rows[0] + 1) == (70, 70)
    assert (len(columns), columns[-1] - columns[0] + 1) == (70, 70)


def test_without_intermediate_outputs_there_is_one_head_and_one_discriminator():
    method = build_method(make_settings("unused", options={"intermediate_outputs": False}))
    assert len(method.build_generator()(pyramid(3, 64, 64, 2))) == 1
    assert len(method.build_discriminator().scales) == 1


def test_depth_ranks_follow_the_data():
    network = MSGUNet((4, 4, 4, 4), 2)
    seen = []
    for name, module in network.named_modules():
        if hasattr(module, "weight") and getattr(module, "weight", None) is not None and module.weight.ndim == 4:
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    network(pyramid(3, 16, 16, 2))
    assert sorted(seen, key=network.depth) == seen


def test_what_the_paper_leaves_open_are_settings():
    def build(**options):
        torch.manual_seed(0)
        return build_method(make_settings("unused", options=options))

    assert build(channels=[32, 64, 64, 64, 64], width=0.5).widths() == [16, 32, 32, 32, 32]
    assert "names 2 levels, there are 5" in build(channels=[8, 8]).problem(build(channels=[8, 8]).options, (64, 64))
    x = [torch.rand(1, 3, 64 >> k, 64 >> k) for k in range(2)]
    torch.manual_seed(1)
    one = build().build_generator()
    other = build(odd_pixel="start").build_generator()
    other.load_state_dict(one.state_dict())
    assert not torch.allclose(one(x)[0], other(x)[0])


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

    usual, other = terms(), terms(**{option: value})
    assert {name for name in usual if usual[name] != other[name]} == moves


def test_open_choices_of_initialisation_order_and_statistics():
    method = build_method(
        make_settings("unused", options={"init_std": 0.2, "generator_first": False, "test_statistics": "batch"})
    )
    assert not method.generator_first
    generator = method.build_generator()
    weights = torch.cat([p.flatten() for p in generator.parameters() if p.ndim == 4])
    assert weights.std().item() == pytest.approx(0.2, rel=0.05)
    method.prepare_inference(generator)
    sources = [torch.rand(1, 3, 64 >> k, 64 >> k) for k in range(2)]
    before = generator(sources)[0]
    for layer in generator.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_mean is None
    assert torch.isfinite(before).all()
    assert "statistics of one picture" in method.conditions()


@pytest.mark.parametrize("name", ["msgunet", "pix2pixhd"])
def test_vgg_sees_each_target_once_a_step_and_without_gradient(name):
    method, generator, discriminator, sources, targets, perceptual = step_losses(name)
    seen = []
    perceptual.features[1].register_forward_hook(lambda _, __, found: seen.append(found.requires_grad))
    method.generator_losses(discriminator, sources, targets, generator(sources), perceptual)
    scales = len(targets)
    assert sorted(seen) == [False] * scales + [True] * scales


def test_vgg19_takes_torchvisions_file_and_no_other(tmp_path, monkeypatch):
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
    with pytest.raises(UserError, match="are not at"):
        load_perceptual(settings, tmp_path / "missing.pth")
    theirs_here = dataclasses.replace(VGG19, checksum=f"sha256:{sha256_file(path)[:8]}")
    monkeypatch.setattr("msgunet.losses.VGG19", theirs_here)
    ours = load_perceptual(settings, path)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    normalised = torchvision.transforms.functional.normalize(
        image * 0.5 + 0.5, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    with torch.inference_mode():
        expected = theirs[:36](normalised)
        assert expected.std() > 0.1
        assert torch.allclose(ours(image)[-1], expected, atol=1e-5)


@pytest.mark.parametrize(("name", "std"), [("msgunet", 0.02), ("pix2pix", 0.02), ("pan", 0.02), ("pix2pixhd", 0.02)])
def test_initialisation_is_the_published_one(name, std):
    method = build_method(make_settings("unused", name))
    for network in (method.build_generator(), method.build_discriminator()):
        layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
        weights = torch.cat([layer.weight.flatten() for layer in layers])
        assert weights.std().item() == pytest.approx(std, rel=0.1)
        assert weights.mean().item() == pytest.approx(0, abs=std / 10)
        biases = torch.cat([layer.bias for layer in layers if layer.bias is not None])
        # Pix2Pix-HD's published code leaves torch's own biases.
        assert biases.any() == (name == "pix2pixhd")


def test_sums_or_means_over_layers_and_scales():
    method, generator, discriminator, sources, targets, perceptual = step_losses("msgunet")
    outputs = generator(sources)
    means = build_method(make_settings("unused", options={"sums": "mean"}))
    summed = method.generator_losses(discriminator, sources, targets, outputs, perceptual)
    meant = means.generator_losses(discriminator, sources, targets, outputs, perceptual)
    scales, layers = 2, {"gan": 1, "features": 5, "perceptual": 16}
    for term, count in layers.items():
        assert summed[term].item() == pytest.approx(meant[term].item() * scales * count, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ({"discriminators": 1}, (64, 64), "there must be 2 discriminators"),
        ({"downsamplings": 4}, (32, 32), "4 downsamplings leave less than 2 pixels of 32"),
    ],
)
def test_the_local_enhancer_says_what_does_not_fit(options, size, expected):
    method = build_method(make_settings("unused", "pix2pixhd", options={"generator": "local", **options}))
    assert expected in method.problem(method.options, size)
