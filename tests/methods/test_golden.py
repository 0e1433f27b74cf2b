"""Golden curves: ten CPU steps per method on committed images reproduce the committed losses to 1e-4.

The steps use double precision, so that the losses agree on every machine. If a method changes intentionally, raise its
`version` and write the curves again: `python -m pytest tests/methods/test_golden.py --write-golden`.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DESIGN, TRAINABLE, make_settings, through_phases
from PIL import Image
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized

from msgunet.core.files import write_csv
from msgunet.data.pairs import pyramid, to_tensor
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.training.state import TrainingState
from msgunet.training.step import step as one_step

FOLDER = Path(__file__).resolve().parent / "golden"


def committed(name: str) -> torch.Tensor:
    """Return a committed image: (1, 3, 64, 64) in [-1, 1], in double precision."""
    with Image.open(FOLDER / f"{name}.png") as image:
        return to_tensor(np.asarray(image.convert("RGB")))[None].double() / 127.5 - 1


def _converge_spectral_norms(network: nn.Module) -> None:
    """Repeat the power iterations in fp64: the first ones ran in fp32, whose last bits depend on the processor."""
    for module in network.modules():
        if isinstance(module, _SpectralNorm):
            layer = next(m for m in network.modules() if is_parametrized(m) and module in m.parametrizations.weight)
            module._power_method(layer.parametrizations.weight.original.detach().flatten(1), 1000)


def curve(name: str) -> list[dict[str, float]]:
    """Return the losses of ten steps at batch 1, alternating two pairs, through all phases of the training."""
    settings = make_settings("unused", name)
    method = build_method(settings)
    state = TrainingState(method, settings, torch.device("cpu"))
    for network in (state.generator, state.discriminator):
        network.double()
        _converge_spectral_norms(network)
    perceptual = load_perceptual(settings.perceptual, None).double() if settings.perceptual else None
    scales = method.scales(method.options, settings.size)
    rows = []
    for step, phase in enumerate(through_phases(method, state, settings.training, 10)):
        torch.manual_seed(step)
        images = (committed(f"{step % 2}.{role}") for role in ("source", "target"))
        sources, targets = (method.view(phase, pyramid(image, scales, "photo"), "photo") for image in images)
        losses = one_step(method, state, sources, targets, perceptual, 2e-4, None)
        state.step += 1
        rows.append({"step": step + 1, **{key: value.item() for key, value in losses.items()}})
    return rows


@pytest.mark.parametrize("name", [*TRAINABLE, "unet_l1_msgunet", *DESIGN])
def test_the_losses_follow_the_golden_curve(name, request):
    if request.config.getoption("--write-golden"):
        write_csv(FOLDER / f"{name}.csv", curve(name))
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        golden = list(csv.DictReader(file))
    rows = curve(name)
    assert len(rows) == len(golden) == 10
    for row, expected in zip(rows, golden, strict=True):
        assert row == pytest.approx({key: float(value) for key, value in expected.items()}, rel=1e-4, abs=1e-9)
