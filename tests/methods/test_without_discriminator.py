"""Methods without a discriminator: the control, and custom ones."""

import ast
import copy

import pytest
import torch
import yaml
from conftest import make_settings, train
from own_code import EXAMPLE
from safetensors.torch import load_file
from test_bugs import suite_of_two
from test_design_options import SIZE, noise, state_of

from msgunet.cli.main import main
from msgunet.cost.count import counts
from msgunet.cost.variants import plain_step
from msgunet.methods.registry import build_method
from msgunet.suite.networks import networks_of
from msgunet.training.step import step as one_step


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_without_a_discriminator_is_plain_gradient_descent(parts):
    """The same weights as a loop in PyTorch alone: L1, Adam; in double precision."""
    training = {"batch_size": 2, "accumulate": parts, "epochs": 1, "decay_epochs": 1}
    method, state, _ = state_of("unet_l1_msgunet", training=training)
    assert set(state.optimizers) == {"generator"}
    twin = copy.deepcopy(state.generator).double()
    state.generator.double()
    sources, targets = ([image.double() for image in images] for images in noise(method))
    adam = torch.optim.Adam(twin.parameters(), 1e-3, (0.5, 0.999))
    for _ in range(2):
        terms = one_step(method, state, sources, targets, None, 1e-3, None)
        adam.zero_grad()
        for part in range(parts):
            images = [[image.chunk(parts)[part] for image in scales] for scales in (sources, targets)]
            outputs = twin(images[0])
            loss = sum((a - b).abs().mean() for a, b in zip(outputs, images[1], strict=True)) / parts
            loss.backward()
        adam.step()
    assert set(terms) == {"l1", "gradient_generator"}
    assert all(
        torch.allclose(a, b, atol=1e-9) for a, b in zip(state.generator.parameters(), twin.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", ["pix2pix", "msgunet"])
def test_the_control_has_the_generator_of_the_method(name):
    control = {"pix2pix": "unet_l1", "msgunet": "unet_l1_msgunet"}[name]
    generators = []
    for each in (name, control):
        torch.manual_seed(0)
        method = build_method(make_settings("unused", each))
        generators.append(method.build_generator().state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*map(dict.values, generators), strict=True))
    assert generators[0].keys() == generators[1].keys()
    cls, options = type(method), method.options
    theirs = build_method(make_settings("unused", name))
    assert cls.recipe(options, SIZE) == type(theirs).recipe(theirs.options, SIZE)
    assert cls.stride(options, (64, 64)) == type(theirs).stride(theirs.options, (64, 64))


def test_an_option_of_the_other_generator_is_an_error():
    with pytest.raises(ValueError, match="the generator of msgunet does not have the option downsamplings"):
        build_method(make_settings("unused", "unet_l1_msgunet", options={"downsamplings": 4}))


def test_it_trains_and_is_counted_without_a_discriminator(tmp_path, data, compute):
    settings = make_settings(data, "unet_l1")
    train(tmp_path / "run", settings, compute)
    assert (tmp_path / "run" / "history.csv").read_text().splitlines()[0].count("l1") == 1
    names = list(load_file(tmp_path / "run" / "generator.safetensors"))
    assert names
    networks = networks_of([settings])
    assert [network.part for network in networks] == ["generator"]
    assert counts(networks[0])["parameters"] > 0
    method, state, _ = state_of("unet_l1")
    assert set(plain_step(method, state, *noise(method), None)) == {"l1"}


def without(*names):
    """Return the documented example without some of its functions."""
    tree = ast.parse(EXAMPLE)
    [cls] = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Mine")
    cls.body = [node for node in cls.body if getattr(node, "name", "") not in names]
    return ast.unparse(tree)


BOTH = ("build_discriminator", "discriminator_losses")
GAN = "'gan': least_squares(scores, True), "
SCORES = "        scores = discriminator(sources, outputs)[0][-1]\n"


def checked(folder, text):
    (folder / "my_method.py").write_text(text)
    (folder / "small.yaml").write_text(yaml.safe_dump(suite_of_two()))
    return main(["check", "small.yaml"])


def test_a_custom_method_needs_no_discriminator(method_folder, capsys):
    text = without(*BOTH)
    assert GAN in text
    assert SCORES in text
    assert checked(method_folder, text.replace(GAN, "").replace(SCORES, "")) == 0, capsys.readouterr().err


def test_losses_that_call_a_discriminator_that_is_not_there(method_folder, capsys):
    assert checked(method_folder, without(*BOTH)) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("error: mine (my_method.py:")
    assert "calls the discriminator, but the method does not define build_discriminator" in first


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (without(BOTH[0]), BOTH[0]),
        (without(BOTH[1]), BOTH[1]),
        (EXAMPLE.replace("discriminator_losses", "discriminatr_losses"), BOTH[1]),
        # Both names mistyped: they are not taken for those of a method without a discriminator.
        (EXAMPLE.replace("build_d", "bild_d").replace("discriminator_l", "discriminatr_l"), ", ".join(BOTH)),
    ],
)
def test_half_a_discriminator_is_an_error(method_folder, capsys, text, missing):
    assert checked(method_folder, text) == 2
    assert f"class Mine does not define {missing} (see docs/own-method.md)" in capsys.readouterr().err
