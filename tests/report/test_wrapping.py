"""Titles in figures are broken between words, never inside a name."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text

from msgunet.report.figures.quality_cost import quality_cost
from msgunet.report.figures.style import wrapped

METRICS = ["psnr", "ssim", "vif"]


@pytest.mark.parametrize(
    ("title", "lines"),
    [
        ("Pix2Pix-HD, the global generator", ["Pix2Pix-HD, the global", "generator"]),
        # With a break at a hyphen, the first line would end with 'U-'.
        ("Our own variant of MSG U-Net", ["Our own variant of MSG", "U-Net"]),
        ("mine: attention_residual_network_v2", ["mine:", "attention_residual_network_v2"]),
    ],
)
def test_names_are_whole_beside_the_points(title, lines):
    assert wrapped(title, 24).split("\n") == lines
    runs = [SimpleNamespace(trainable=True, settings=SimpleNamespace(entry=entry)) for entry in "ab"]
    collection = SimpleNamespace(settings={"metrics": METRICS}, runs=runs)
    means = pd.DataFrame({"entry": ["a", "b"], "title": [title, "b"], "latency_ms": [1.0, 9.0]})
    means = means.assign(peak_memory_mib=100.0)
    for metric in METRICS:
        means[metric], means[f"{metric}_low"], means[f"{metric}_high"] = [20.0, 30.0], [19.0, 29.0], [21.0, 31.0]
    figure = quality_cost(collection, means, pd.DataFrame(columns=["entry", *METRICS]))
    texts = [text.get_text() for text in figure.findobj(Text)]
    plt.close(figure)
    assert texts.count("\n".join([*lines, "100 MiB"])) == len(METRICS)


def test_a_word_is_cut_only_where_nothing_can_be_wider():
    assert wrapped("attention_residual U-Net", 12, cut=True).split("\n") == ["attention_re", "sidual U-Net"]
    assert np.max([len(line) for line in wrapped("x" * 80, 16, cut=True).split("\n")]) == 16
