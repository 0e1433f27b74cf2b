"""The cells of the ablation, with a generator that returns its input."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_data, make_settings, write_run
from PIL import Image
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from msgunet.core.errors import UserError
from msgunet.data.manifest import read_manifest
from msgunet.evaluation import ablation
from msgunet.evaluation.ablation import ablate


class Identity:
    """A generator with some scales that returns its input."""

    device = torch.device("cpu")

    def __init__(self, settings, scales: int) -> None:
        self.settings = settings
        self.source_scales = scales

    def __call__(self, sources, name):
        assert name.startswith("p")
        return sources


def mean(image: np.ndarray, times: int) -> np.ndarray:
    """Return the mean of blocks of 2^times pixels."""
    n = 2**times
    return image.reshape(image.shape[0] // n, n, image.shape[1] // n, n, 3).mean((1, 3))


def doubled(image: np.ndarray, times: int) -> np.ndarray:
    for _ in range(times):
        x = torch.from_numpy(image).permute(2, 0, 1)[None]
        image = F.interpolate(x, scale_factor=2, mode="bilinear")[0].permute(1, 2, 0).numpy()
    return image


def ablated(tmp_path, compute, monkeypatch, scales: int) -> pd.DataFrame:
    settings = make_settings(make_data(tmp_path / "data", 64, 48, train=1, test=2), size=(64, 48))
    monkeypatch.setattr(ablation, "load_run", lambda *_: Identity(settings, scales))
    ablate(write_run(tmp_path, settings), tmp_path / "generator", tmp_path / "ablation.csv", compute, None)
    return pd.read_csv(tmp_path / "ablation.csv")


def test_each_cell_compares_the_source_from_its_scale_with_the_target_at_the_outputs(tmp_path, compute, monkeypatch):
    cells = ablated(tmp_path, compute, monkeypatch, scales=3)
    sizes = [(64, 48), (32, 24), (16, 12)]
    found = cells.set_index(["id", "input_width", "input_height", "output_width", "output_height"])["ssim"]
    pairs = read_manifest(tmp_path / "data" / "manifest.csv", "test")
    assert sorted(found.index) == sorted((pair.id, *a, *b) for pair in pairs for a in sizes for b in sizes)
    for pair in pairs:
        source, target = (np.asarray(Image.open(tmp_path / "data" / p), float) for p in (pair.source, pair.target))
        for i, a in enumerate(sizes):
            for o, b in enumerate(sizes):
                output = mean(source, o) if o >= i else doubled(mean(source, i), i - o)
                expected = structural_similarity(
                    output.round(),
                    mean(target, o).round(),
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                    channel_axis=-1,
                    data_range=255,
                )
                # A value at a half may round to either side.
                assert found[pair.id, *a, *b] == pytest.approx(expected, abs=2e-3)


def test_a_generator_needs_two_scales(tmp_path, compute, monkeypatch):
    assert len(ablated(tmp_path / "two", compute, monkeypatch, scales=2)) == 8
    with pytest.raises(UserError, match="needs a generator with several scales"):
        ablated(tmp_path / "one", compute, monkeypatch, scales=1)
