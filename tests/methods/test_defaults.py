"""Each method's default options, their bounds, and what depends on the size and on the suite's epochs."""

import pytest
import torch
from conftest import make_settings
from pydantic import ValidationError

from msgunet.core.settings import TrainingSettings
from msgunet.methods.registry import build_method, get_method

PUBLISHED = {
    "msgunet": {
        "width": 1,
        "discriminator_width": 1,
        "discriminator_weight": 0.5,
        "init_std": 0.02,
        "alpha": 10,
        "beta": 0.25,
        "vgg_layers": tuple(range(16)),
        "generator_first": True,
        "intermediate_outputs": True,
    },
    "pix2pix": {"width": 1, "discriminator_width": 1, "l1": 100, "dropout": 0.5},
    "pan": {
        "width": 1,
        "discriminator_width": 1,
        "weights": (5, 1.5, 1.5, 5),
        "perceptual": 1,
        "margin": 1,
    },
    "pix2pixhd": {
        "width": 1,
        "discriminator_width": 1,
        "downsamplings": 4,
        "blocks": 9,
        "features": 10,
        "perceptual": 10,
        "normalise_vgg": False,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_defaults_are_the_published_ones(name):
    options = get_method(name).Options().model_dump()
    assert {key: options[key] for key in PUBLISHED[name]} == PUBLISHED[name]


# The smallest and largest values that make sense, and those just beyond.
BOUNDS = [
    ("msgunet", "levels", [2, 3], [1]),
    ("msgunet", "channels", [[1, 1]], [[0, 1]]),
    ("msgunet", "vgg_layers", [[0], [15]], [[], [-1], [16]]),
    ("msgunet", "scales", [1, 15], [0, 16]),
    ("pix2pix", "downsamplings", [2, 14], [1, 15]),
    ("pix2pix", "dropout", [0, 0.99], [-0.01, 1]),
    ("pix2pixhd", "downsamplings", [1, 14], [0, 15]),
    ("pix2pixhd", "blocks", [0, 100], [-1, 101]),
    ("pix2pixhd", "discriminators", [1, 8], [0, 9]),
]
# A weight may be zero, which leaves the term out; a width may not.
WEIGHTS = {
    "msgunet": ["alpha", "beta"],
    "pix2pix": ["l1"],
    "pan": ["perceptual"],
    "pix2pixhd": ["features", "perceptual"],
}
EPOCHS = ["coarse_epochs", "coarse_decay_epochs", "freeze_epochs"]
BOUNDS += [(name, key, [0, 1], [-0.01]) for name, keys in WEIGHTS.items() for key in keys]
BOUNDS += [("pix2pixhd", key, [0, 1], [-1]) for key in EPOCHS]
POSITIVE = {name: ["width", "discriminator_width"] for name in PUBLISHED}
POSITIVE["msgunet"] += ["discriminator_weight", "init_std"]
POSITIVE["pan"] += ["margin"]
BOUNDS += [(name, key, [0.01, 1], [0]) for name, keys in POSITIVE.items() for key in keys]


@pytest.mark.parametrize(("name", "key", "accepted", "refused"), BOUNDS, ids=lambda v: v if isinstance(v, str) else "")
def test_options_end_where_they_stop_to_make_sense(name, key, accepted, refused):
    options = get_method(name).Options
    for value in accepted:
        options.model_validate({key: value})
    for value in refused:
        with pytest.raises(ValidationError):
            options.model_validate({key: value})


@pytest.mark.parametrize(
    ("name", "scales", "generator", "options"),
    [
        ("msgunet", 2, 64, {}),
        ("msgunet", 1, 64, {"intermediate_outputs": False}),
        ("pix2pix", 1, 64, {}),
        ("pan", 1, 64, {}),
        ("pix2pixhd", 2, 64, {}),
        ("pix2pixhd", 3, 32, {"generator": "local", "discriminators": 3}),
    ],
)
def test_networks_begin_with_the_published_number_of_channels(name, scales, generator, options):
    def first(network, **widths):
        method = build_method(make_settings("unused", name, options=options | widths))
        with torch.device("meta"):
            built = getattr(method, f"build_{network}")()
        found = [m for m in built.modules() if isinstance(m, torch.nn.Conv2d) and m.in_channels == sum(inputs[network])]
        return [layer.out_channels for layer in found]

    inputs = {"generator": (3,), "discriminator": (3, 3)}
    assert first("discriminator", discriminator_width=1) == [64] * scales
    assert first("discriminator", discriminator_width=0.25) == [16] * scales
    assert first("generator", width=1)[-1] == generator
    assert first("generator", width=0.25)[-1] == generator / 4


@pytest.mark.parametrize(("name", "rates"), [("pix2pix", [0.5]), ("pan", [])])
def test_only_pix2pix_has_dropout(name, rates):
    generator = build_method(make_settings("unused", name, options={"downsamplings": 6})).build_generator()
    assert [m.p for m in generator.modules() if isinstance(m, torch.nn.Dropout)] == rates


@pytest.mark.parametrize(("name", "key"), [("msgunet", "beta"), ("pix2pixhd", "perceptual")])
def test_vgg19_is_loaded_only_for_a_term_with_a_weight(name, key):
    method = get_method(name)
    used = [method.uses_perceptual(method.Options.model_validate({key: weight})) for weight in (0, 0.5, 2)]
    assert used == [False, True, True]


def phases(epochs: int, decay: int, size=(64, 64), **options) -> list[tuple[str, int, int]]:
    training = TrainingSettings(epochs=epochs, decay_epochs=decay)
    method = build_method(make_settings("unused", "pix2pixhd", size=size, training=training, options=options))
    return [(phase.name, phase.epochs, phase.decay_epochs) for phase in method.phases(training)]


def test_pix2pixhds_phases_follow_the_suites_epochs():
    """Published, for 50 + 50 epochs: 100 + 100 at half the size, then 10 with the global part frozen."""
    frozen = "with the global part frozen"
    local = {"generator": "local", "coarse_epochs": None, "freeze_epochs": None}
    assert phases(50, 50, **local) == [("coarse", 100, 100), (frozen, 10, 0), ("fine", 40, 50)]
    assert phases(7, 23, **local) == [("coarse", 14, 46), (frozen, 3, 0), ("fine", 4, 23)]
    assert phases(2, 98, **local) == [("coarse", 4, 196), (frozen, 2, 0), ("fine", 0, 98)], "no more than there are"
    assert phases(7, 23, **local | {"coarse_epochs": 5}) == [("coarse", 5, 46), (frozen, 3, 0), ("fine", 4, 23)]
    assert phases(7, 23, **local | {"freeze_epochs": 0}) == [("coarse", 14, 46), ("fine", 7, 23)]
    untrained = {"coarse_epochs": 0, "coarse_decay_epochs": 0}
    assert phases(7, 23, **local | untrained)[1:] == [("fine", 7, 23)], "an untrained global part is not frozen"
    assert [phase[1:] for phase in phases(7, 23, generator="global")] == [(7, 23)]
    method = build_method(make_settings("unused", "pix2pixhd", options=local))
    assert [phase.fresh for phase in method.phases(TrainingSettings())][-1] == ("generator",)


@pytest.mark.parametrize(
    ("name", "of", "size", "expected"),
    [
        ("msgunet", "levels", (2048, 1024), 9),
        ("msgunet", "levels", (512, 512), 8),
        ("msgunet", "levels", (256, 512), 7),
        ("msgunet", "levels", (6, 6), 2),
        ("msgunet", "scales", (2048, 1024), 5),
        ("msgunet", "scales", (512, 512), 4),
        ("msgunet", "scales", (24, 24), 1),
        ("msgunet", "stride", (2048, 1024), 256),
        ("pix2pix", "downsamplings", (256, 256), 8),
        ("pix2pix", "downsamplings", (64, 128), 6),
        ("pix2pix", "downsamplings", (1024, 1024), 8),
        ("pix2pix", "downsamplings", (3, 3), 2),
        ("pix2pix", "stride", (256, 256), 256),
        ("pix2pixhd", "discriminators", (2048, 1024), 3),
        ("pix2pixhd", "discriminators", (2047, 2048), 2),
        ("pix2pixhd", "local", (2048, 1024), True),
        ("pix2pixhd", "local", (2047, 2048), False),
        ("pix2pixhd", "stride", (2048, 1024), 32),
        ("pix2pixhd", "stride", (1024, 1024), 16),
    ],
)
def test_networks_fit_the_size_by_default(name, of, size, expected):
    method = get_method(name)
    assert getattr(method, of)(method.Options(), size) == expected


@pytest.mark.parametrize(
    ("name", "size", "options", "expected"),
    [
        ("msgunet", (256, 256), {}, None),
        ("msgunet", (256, 256), {"levels": 8}, None),
        ("msgunet", (256, 256), {"levels": 9}, "9 levels reduce 256 pixels to less than 2; use fewer levels"),
        ("msgunet", (256, 256), {"scales": 4, "levels": 5}, None),
        ("msgunet", (256, 256), {"scales": 4, "levels": 4}, "4 scales need at least 5 levels, but the U-Net has 4"),
        ("msgunet", (192, 192), {"scales": 4, "levels": 6}, None),
        ("msgunet", (184, 184), {"scales": 4, "levels": 4}, "4 scales need at least 5 levels, but the U-Net has 4"),
        ("msgunet", (160, 160), {"scales": 4, "levels": 5}, "the coarsest scale is 20 pixels high or wide, the"),
        ("pix2pix", (32, 24), {"downsamplings": 3}, None),
        ("pix2pix", (32, 16), {"downsamplings": 3}, "size 32x16: the discriminator needs at least 24 pixels on the"),
        ("pix2pixhd", (32, 32), {}, None),
        ("pix2pixhd", (32, 16), {}, "4 downsamplings reduce 16 pixels to less than 2; use fewer"),
        ("pix2pixhd", (32, 32), {"downsamplings": 2, "discriminators": 2}, None),
        ("pix2pixhd", (32, 16), {"downsamplings": 2}, "the coarsest discriminator sees 8 pixels but needs 16; use"),
        ("pix2pixhd", (64, 64), {"generator": "local", "discriminators": 2}, None),
    ],
)
def test_sizes_that_do_not_fit_say_by_how_much(name, size, options, expected):
    method = get_method(name)
    problem = method.problem(method.Options.model_validate(options), size)
    assert problem is None if expected is None else (problem or "").startswith(expected)


def test_msgunets_channels_are_pix2pixs_with_a_second_full_level_at_2048x1024():
    def widths(size, **options):
        options = {"width": 1, "scales": None, **options}
        return build_method(make_settings("unused", size=size, options=options)).widths()

    assert widths((2048, 1024)) == [64, 64, 128, 256, 512, 512, 512, 512, 512]
    assert widths((512, 512)) == [64, 128, 256, 512, 512, 512, 512, 512]
    assert widths((128, 128), scales=1, levels=2) == [64, 128]
