"""SPADE, a custom method in `examples`: its networks, losses and two time scales."""

import copy

import pytest
import torch
from conftest import FILES, make_settings
from torch.utils.flop_counter import FlopCounterMode

from msgunet.core.errors import UserError
from msgunet.core.settings import TrainingSettings
from msgunet.data.pairs import blank_pyramid
from msgunet.methods.folding import fold_parametrizations
from msgunet.methods.registry import build_method, get_method
from msgunet.training.state import TrainingState
from msgunet.training.step import step


def spade(size=(64, 64), **options):
    cls = get_method("spade", FILES["spade"])
    return cls(cls.Options(**options), size)


def on_shapes(method):
    with torch.device("meta"):
        generator = method.build_generator().eval()
        with FlopCounterMode(display=False) as counter:
            [output] = generator(blank_pyramid(1, method.size))
    assert output.shape[2:] == method.size[::-1]
    return sum(p.numel() for p in generator.parameters()), counter.get_total_flops() / 2e9


def test_spade_has_the_published_size():
    """Count with 36 classes, as published for Cityscapes.

    The published code prints 93.0 M parameters. Li et al. (GAN Compression, CVPR 2020, Table 1) report 93.0 M and 281
    GMACs at 512x256; that is with one more upsampling.
    """
    classes = tuple((i, i, i) for i in range(36))
    parameters, gmac = on_shapes(spade((512, 256), palette=classes))
    assert parameters == 93_048_003
    assert gmac == pytest.approx(292.67, abs=0.01)
    assert on_shapes(spade((512, 256), palette=classes, upsamplings=6)) == (parameters, pytest.approx(281, abs=0.5))


def test_spades_size_by_hand():
    """Count a narrow generator layer by layer: 4 filters, 8 hidden channels, 3 classes."""

    def conv(inputs, outputs, side=3, bias=True):
        return outputs * (inputs * side**2 + bias)

    def norm(channels):
        return conv(3, 8) + 2 * conv(8, channels)

    def block(a, b):
        shortcut = 0 if a == b else norm(a) + conv(a, b, 1, bias=False)
        return norm(a) + norm(min(a, b)) + conv(a, min(a, b)) + conv(min(a, b), b) + shortcut

    widths = [(64, 64), (64, 64), (64, 64), (64, 32), (32, 16), (16, 8), (8, 4)]
    expected = conv(3, 64) + sum(block(a, b) for a, b in widths) + conv(4, 3)
    palette = ((0, 0, 0), (9, 9, 9), (255, 0, 0))
    assert on_shapes(spade(width=0.0625, palette=palette))[0] == expected
    discriminators = spade(discriminator_width=0.0625, palette=palette).build_discriminator()
    # Only convolutions without a following norm have a bias.
    one = conv(6, 4, 4) + sum(conv(a, b, 4, bias=False) for a, b in ((4, 8), (8, 16), (16, 32))) + conv(32, 1, 4)
    assert sum(p.numel() for p in discriminators.parameters()) == 2 * one


@pytest.mark.parametrize(("size", "ups"), [((256, 256), 5), ((512, 256), 5), ((1024, 512), 6), ((2048, 1024), 7)])
def test_upsamplings_follow_the_size(size, ups):
    method = spade(size)
    assert (method.upsamplings(method.options, size), method.stride(method.options, size)) == (ups, 2**ups)
    on_shapes(spade(size, width=0.0625))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_classes_are_exact_for_colours_of_the_palette_and_nearest_for_others(dtype):
    method = spade(width=0.0625)
    classes = method.build_generator().to(dtype).classes
    colours = torch.tensor(method.palette)
    assert len(set(method.palette)) == len(method.palette) == 29

    def predicted(values):
        pixels = (values.double() / 127.5 - 1).to(dtype).T.reshape(1, 3, 1, -1)
        maps = classes(pixels)
        assert maps.dtype == dtype
        assert (maps.sum(1) == 1).all()
        return maps[0, :, 0].argmax(0)

    assert torch.equal(predicted(colours), torch.arange(29))
    # Off by two grey levels, but still nearest to the same colour.
    assert torch.equal(predicted((colours + 2).clamp(max=255)), torch.arange(29))
    photograph = torch.rand(1, 3, 8, 8)
    assert spade(width=0.0625, palette="none").build_generator().classes(photograph) is photograph


def test_cityscapes_palette_is_that_of_its_labels():
    """Road, car and sky have their published colours, and every colour is a separate class."""
    palette = spade().palette
    assert {(128, 64, 128), (0, 0, 142), (70, 130, 180), (0, 0, 0)} <= set(palette)


def test_a_palette_needs_colours():
    cls = get_method("spade", FILES["spade"])
    with pytest.raises(UserError, match="sources have 1 channels instead of colours; set palette to none"):
        cls(cls.Options(), (64, 64), (1, 3)).build_generator()


def test_hinge_loss_and_generator_loss_by_hand():
    method = spade()
    scores = [[[torch.zeros(1), torch.tensor([-3.0, 0.0, 0.5, 2.0])]], [[torch.zeros(1), torch.tensor([0.0, 2.0])]]]
    fake, real = scores[0], scores[1]
    scores_of = lambda sources, images: [*fake, *fake] if images == "output" else [*real, *real]  # noqa: E731
    losses = method.discriminator_losses(scores_of, None, "real", "output")
    # max(0, 1 + s): 0, 1, 1.5, 3; max(0, 1 - s): 1, 0; the mean over two identical scales.
    assert losses == {"d_fake": pytest.approx(5.5 / 4), "d_real": pytest.approx(0.5)}
    terms = method.generator_losses(scores_of, None, "real", "output", None)
    assert terms["gan"] == pytest.approx(0.125)


def test_features_are_matched_on_all_layers_except_the_last():
    """The term is 10 times the sum over layers of mean distances, averaged over scales."""
    layers = {"output": [[torch.full((2, 2), v) for v in (1.0, 2.0, 9.0)]] * 2}
    layers["real"] = [[torch.zeros(2, 2) for _ in range(3)]] * 2
    terms = spade().generator_losses(lambda _, images: layers[images], None, "real", "output", None)
    assert terms["features"] == pytest.approx(10 * (1 + 2))


def test_two_time_scales_reach_the_optimisers():
    settings = make_settings("unused", "spade")
    method = build_method(settings)
    state = TrainingState(method, settings, torch.device("cpu"))

    def rates():
        return [state.optimizers[name].param_groups[0]["lr"] for name in ("generator", "discriminator")]

    assert rates() == [2e-4, 8e-4]
    images = [[torch.rand(2, 3, 64, 64)] for _ in "st"]
    step(method, state, *images, None, 1e-4, None)
    assert rates() == [1e-4, 4e-4]
    recipe = TrainingSettings(**method.recipe(method.options, (512, 256)))
    assert (recipe.learning_rate, recipe.beta1, recipe.beta2) == (1e-4, 0.0, 0.9)
    assert (recipe.epochs, recipe.decay_epochs, recipe.decay_from) == (100, 100, "second")
    assert get_method("msgunet").rates == {}


def test_inference_changes_nothing_and_is_repeatable():
    torch.manual_seed(0)
    generator = spade(width=0.0625).build_generator()
    images = [torch.rand(1, 3, 64, 64) * 2 - 1]
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    generator(images)
    moved = {key for key, value in generator.state_dict().items() if not torch.equal(value, before[key])}
    moved = {key.rsplit(".", 1)[1] for key in moved}
    assert moved == {"_u", "_v", "running_mean", "running_var", "num_batches_tracked"}
    generator.eval()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    with torch.no_grad():
        once, twice = generator(images)[0], generator(images)[0]
    assert torch.equal(once, twice)
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())


def test_folded_spectral_norm_leaves_a_training_network_alone():
    """A copy that is folded for inference must not share state that training still needs."""
    torch.manual_seed(0)
    generator = spade(width=0.0625).build_generator()
    fast = copy.deepcopy(generator).eval()
    fold_parametrizations(fast)
    assert not [key for key in fast.state_dict() if "parametrizations" in key]
    images = [torch.rand(1, 3, 64, 64) * 2 - 1]
    with torch.no_grad():
        assert torch.allclose(fast(images)[0], generator.eval()(images)[0], atol=1e-6)
    assert [key for key in generator.state_dict() if "parametrizations" in key]
    largest = [torch.linalg.matrix_norm(block.convs[0].weight.flatten(1), 2) for block in fast.blocks]
    assert torch.stack(largest) == pytest.approx(1, abs=0.1)


def test_the_average_of_weights_keeps_spectral_norms_vectors():
    settings = make_settings("unused", "spade", training=TrainingSettings(ema=0.5, batch_size=2))
    method = build_method(settings)
    state = TrainingState(method, settings, torch.device("cpu"))
    step(method, state, *([torch.rand(2, 3, 64, 64)] for _ in "st"), None, 1e-2, None)
    state.update_average(0.5)
    now, kept = state.generator.state_dict(), state.average.state_dict()
    vectors = [key for key in now if key.endswith(("._u", "._v"))]
    assert vectors
    assert all(torch.equal(now[key], kept[key]) for key in vectors)
    assert not torch.equal(now["entry.weight"], kept["entry.weight"])
