"""Networks: published sizes, ranges, receptive field, and the choices that the paper leaves open."""

import pytest
import torch
from conftest import TRAINABLE, make_settings
from losses_of import step_losses
from torch.utils.flop_counter import FlopCounterMode

from baselines.networks import GlobalGenerator, LocalEnhancer, UNet
from msgunet.methods.networks import MSGUNet, PatchGAN
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import VGG19Features

WIDTHS = (64, 64, 128, 256, 512, 512, 512, 512, 512)


def pyramid(channels, height, width, scales=1):
    return [torch.zeros(1, channels, height >> k, width >> k) for k in range(scales)]


# Parameters and GMACs counted independently in the published code bases.
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


def test_vgg19_has_the_published_size_and_stops_at_the_last_requested_layer():
    with torch.device("meta"):
        network = VGG19Features()
        with FlopCounterMode(display=False) as whole:
            network(torch.zeros(1, 3, 256, 256))
        with FlopCounterMode(display=False) as start:
            features = network(torch.zeros(1, 3, 256, 256), (0, 2))
    assert sum(p.numel() for p in network.parameters()) == 20_024_384
    assert whole.get_total_flops() / 2e9 == pytest.approx(25.480, rel=1e-3)
    assert [f.shape[1] for f in features] == [64, 128]
    assert start.get_total_flops() < 0.3 * whole.get_total_flops()


@pytest.mark.parametrize("name", TRAINABLE)
def test_outputs_have_the_sources_sizes_and_range(name):
    _, generator, _, sources, *_ = step_losses(name)
    outputs = generator(sources)
    assert [o.shape for o in outputs] == [s.shape for s in sources]
    assert all(o.abs().max() <= 1 for o in outputs)


def test_patchgan_sees_70_pixels():
    """Change the pixels of one row and one column: 70 consecutive pixels affect a score, and no others."""
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


def test_the_choices_that_the_paper_leaves_open_are_settings():
    def build(**options):
        torch.manual_seed(0)
        return build_method(make_settings("unused", options=options))

    assert build(channels=[32, 64, 64, 64, 64], width=0.5).widths() == [16, 32, 32, 32, 32]
    assert "lists 2 levels, but the U-Net has 5" in build(channels=[8, 8]).problem(
        build(channels=[8, 8]).options, (64, 64)
    )
    x = [torch.rand(1, 3, 64 >> k, 64 >> k) for k in range(2)]
    torch.manual_seed(1)
    one = build().build_generator()
    other = build(odd_pixel="start").build_generator()
    other.load_state_dict(one.state_dict())
    assert not torch.allclose(one(x)[0], other(x)[0])


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
    assert "statistics of one image" in method.conditions()


@pytest.mark.parametrize(("name", "std"), [("msgunet", 0.02), ("pix2pix", 0.02), ("pan", 0.02), ("pix2pixhd", 0.02)])
def test_initialisation_is_the_published_one(name, std):
    method = build_method(make_settings("unused", name))
    for network in (method.build_generator(), method.build_discriminator()):
        layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
        weights = torch.cat([layer.weight.flatten() for layer in layers])
        assert weights.std().item() == pytest.approx(std, rel=0.1)
        assert weights.mean().item() == pytest.approx(0, abs=std / 10)
        biases = torch.cat([layer.bias for layer in layers if layer.bias is not None])
        # Pix2Pix-HD's published code keeps torch's default biases.
        assert biases.any() == (name == "pix2pixhd")


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ({"discriminators": 1}, (64, 64), "needs at least 2 discriminators"),
        ({"downsamplings": 4}, (32, 32), "4 downsamplings reduce 32 pixels to less than 2"),
    ],
)
def test_the_local_enhancer_reports_sizes_that_do_not_fit(options, size, expected):
    method = build_method(make_settings("unused", "pix2pixhd", options={"generator": "local", **options}))
    assert expected in method.problem(method.options, size)
