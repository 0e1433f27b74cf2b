"""MSG U-Net's options for ablations of its design."""

import copy

import pytest
import torch
from conftest import DESIGN, make_settings
from torch.utils.flop_counter import FlopCounterMode

from msgunet.methods.msgunet import MSGUNetMethod, MSGUNetOptions
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.training.state import TrainingState
from msgunet.training.step import step as one_step

SIZE = (512, 512)


def noise(method, size=(64, 64), count=2):
    generator = torch.Generator().manual_seed(0)
    shapes = [(count, 3, size[1] >> k, size[0] >> k) for k in range(method.scales(method.options, size))]
    return tuple([torch.rand(shape, generator=generator) * 2 - 1 for shape in shapes] for _ in "st")


def state_of(name, **changes):
    settings = make_settings("unused", name, **changes)
    method = build_method(settings)
    state = TrainingState(method, settings, torch.device("cpu"))
    perceptual = load_perceptual(settings.perceptual, None) if settings.perceptual else None
    return method, state, perceptual


# Differences of the weights from those of the paper's network at 512x512 (57,672,140 and four times 2,768,705), by the
# layers that are there and those that are not.
_MERGES = sum((width + 3) * width + 2 * width for width in (128, 256, 512))
_REFINES = sum(16 * width * width for width in (64, 128, 256, *[512] * 4))
COUNTS = {
    "msgunet_joint": (0, 2_768_705 + 6 * 16 * (128 + 256 + 512) - 4 * 2_768_705),
    "msgunet_full": (0, -3 * 2_768_705),
    "msgunet_first": (-_MERGES, 0),
    "msgunet_concatenate": (_REFINES, 0),
    "msgunet_single": (-sum(27 * width + 3 for width in (128, 256, 512)), -3 * 2_768_705),
}


@pytest.mark.parametrize("name", DESIGN)
def test_the_numbers_of_weights_differ_by_the_layers_that_the_option_changes(name):
    def weights(options):
        with torch.device("meta"):
            method = MSGUNetMethod(MSGUNetOptions(**options), SIZE)
            networks = method.build_generator(), method.build_discriminator()
        return [{key: p.numel() for key, p in network.named_parameters()} for network in networks]

    paper, other = weights({}), weights(DESIGN[name])
    assert [sum(network.values()) for network in paper] == [57_672_140, 4 * 2_768_705]
    difference = tuple(sum(b.values()) - sum(a.values()) for a, b in zip(paper, other, strict=True))
    if name == "msgunet_instance":
        # No affine weights of norms; biases in the discriminators, as in the published one with instance norm.
        norms = sum(
            n
            for network in paper
            for key, n in network.items()
            if key.endswith((".1.weight", ".1.bias")) and "heads" not in key
        )
        biases = 4 * (128 + 256 + 512)
        assert sum(difference) == -norms + biases
    else:
        assert difference == COUNTS.get(name, (0, 0))


def test_the_operations_follow_the_layers():
    def gmac(options):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            method = MSGUNetMethod(MSGUNetOptions(**options), SIZE)
            method.build_generator()(noise(method, SIZE, 1)[0])
        return counter.get_total_flops() / 2e9

    pixels = [SIZE[0] * SIZE[1] >> 2 * level for level in range(8)]
    merges = sum(p * (w + 3) * w for p, w in zip(pixels[1:4], (128, 256, 512), strict=True)) / 1e9
    widths = (64, 128, 256, *[512] * 4)
    refines = sum(p * 16 * w * w for p, w in zip(pixels[:-1], widths, strict=True)) / 1e9
    paper = gmac({})
    assert gmac({"source_scales": "first"}) == pytest.approx(paper - merges, rel=1e-9)
    assert gmac({"skips": "concatenate"}) == pytest.approx(paper + refines, rel=1e-9)
    assert gmac({"norm": "instance"}) == paper


@pytest.mark.parametrize("name", [name for name, options in DESIGN.items() if {"alpha", "beta"}.isdisjoint(options)])
def test_one_step_changes_every_weight_at_every_scale(name):
    method, state, perceptual = state_of(name)
    sources, targets = noise(method)
    outputs = state.generator(sources)
    kept = 1 if name == "msgunet_single" else 2
    assert [output.shape for output in outputs] == [source.shape for source in sources[:kept]]
    networks = (state.generator, state.discriminator)
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    one_step(method, state, sources, targets, perceptual, 1e-3, None)
    for network, old in zip(networks, before, strict=True):
        still = [key for key, weight in network.named_parameters() if torch.equal(weight, old[key])]
        # Before a norm that has no weights, a bias has no effect.
        assert [key for key in still if not (name == "msgunet_instance" and key.endswith(".0.bias"))] == []


@pytest.mark.parametrize("scales", [2, 3, 5])
def test_the_gradient_of_the_joint_discriminator_reaches_every_output(scales):
    """Its only score depends on each scale alone: the gradients of all others are set to zero."""
    options = MSGUNetOptions(discriminators="joint", discriminator_width=0.0625, scales=scales)
    method = MSGUNetMethod(options, (128, 64))
    torch.manual_seed(0)
    discriminator = method.build_discriminator()
    sources, images = noise(method, (128, 64))
    for alone in range(scales):
        outputs = [image.clone().requires_grad_() for image in images]
        seen = [image if k == alone else image.detach() * 0 for k, image in enumerate(outputs)]
        scores = discriminator(sources, seen)
        assert len(scores) == 1
        assert scores[0][-1].shape[:2] == (2, 1)
        scores[0][-1].square().mean().backward()
        assert [image.grad is not None and bool(image.grad.any()) for image in outputs] == [
            k == alone for k in range(scales)
        ]


def test_the_full_discriminator_leaves_the_smaller_outputs_to_the_perceptual_term():
    method, state, perceptual = state_of("msgunet_full", options={"scales": 2})
    sources, targets = noise(method)
    outputs = [output.detach().requires_grad_() for output in state.generator(sources)]
    assert len(outputs) == 2
    terms = method.generator_losses(state.discriminator, sources, targets, outputs, perceptual)
    reached = [torch.autograd.grad(terms[name], outputs, allow_unused=True, retain_graph=True) for name in terms]
    assert {name: [g is not None for g in found] for name, found in zip(terms, reached, strict=True)} == {
        "gan": [True, False],
        "features": [True, False],
        "perceptual": [True, True],
    }


def test_a_source_at_the_first_scale_alone_ignores_the_others():
    for name, same in (("msgunet_first", True), ("msgunet", False)):
        method = build_method(make_settings("unused", name))
        sources, _ = noise(method)
        generator = method.build_generator().eval()
        with torch.inference_mode():
            other = generator([sources[0], -sources[1]])[0]
            assert torch.equal(generator(sources)[0], other) == same


def test_an_option_at_its_default_is_not_in_the_settings_of_a_run():
    """Otherwise results from before the option would have other settings, and their runs would train again."""
    options = make_settings("unused").options
    assert not {"discriminators", "source_scales", "skips", "norm"} & options.keys()
    assert make_settings("unused", "msgunet_joint").options["discriminators"] == "joint"


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ({"discriminators": "joint", "scales": 1}, (64, 64), "there is one; use 'discriminators: per_scale'"),
        ({"discriminators": "joint", "intermediate_outputs": False}, (256, 256), "there is one; use"),
        ({"discriminators": "full", "levels": 3}, (23, 32), "size 23x32: the discriminator needs at least 24 pixels"),
        ({"scales": 3}, (64, 64), "the coarsest scale is 16 pixels high or wide, the discriminator needs 24"),
    ],
)
def test_a_design_that_cannot_be_built_is_a_problem_before_anything_runs(options, size, expected):
    assert expected in MSGUNetMethod.problem(MSGUNetOptions(**options), size)


def test_scales_that_only_their_own_discriminators_could_not_judge_are_possible_without_these():
    options = MSGUNetOptions(scales=3, discriminators="full")
    assert MSGUNetMethod.problem(options, (64, 64)) is None
