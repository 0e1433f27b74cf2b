"""Fig. 2 (gradient distribution) and the qualitative figures (Figs. 4 to 6), as PDF and PNG."""

import textwrap
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from msgunet.data.base import resize
from msgunet.data.manifest import read_manifest
from msgunet.files import atomic, write_json
from msgunet.registry import get_method
from msgunet.report.collect import Collection

_VARIANTS = {"without": "without intermediate outputs", "with": "with intermediate outputs"}


def write_figures(settings_file: Path, results: Path) -> list[dict[str, str]]:
    """Write every figure that can be made as PDF and PNG in `results/figures`, and `figures.json` with the captions."""
    collection = Collection(settings_file, results)
    sns.set_theme("paper", "whitegrid", "colorblind")
    # Text stays text in the PDF, and two runs give the same bytes.
    mpl.rcParams.update({"pdf.fonttype": 42, "savefig.dpi": 150, "font.size": 9})
    folder = results / "figures"
    made = [*_gradient_figures(collection, folder), *_qualitative_figures(collection, folder)]
    write_json(folder / "figures.json", made)
    return made


def _save(figure: Figure, folder: Path, name: str, title: str, caption: str, command: str) -> dict[str, str]:
    figure.text(
        0.01,
        -0.01,
        "\n".join(textwrap.wrap(caption, int(21 * figure.get_figwidth()))),
        va="top",
        fontsize=6,
        color="0.3",
    )
    # Lay it out once, not for each format.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        with atomic(folder / f"{name}.{suffix}") as temporary:
            figure.savefig(temporary, bbox_inches="tight", metadata=metadata)
    plt.close(figure)
    return {"name": name, "title": title, "caption": caption, "command": command}


def _gradient_figures(collection: Collection, folder: Path) -> list[dict[str, str]]:
    frames = {run.folder.name: run.table("gradients.csv") for run in collection.gradients}
    if not frames or any(frame is None for frame in frames.values()):
        return []
    run = collection.gradients[0]
    steps = sorted(frames["with"]["step"].unique())
    caption = (
        f"{run.title} on {collection.data_conditions(run.settings.dataset)}, trained with and without its "
        f"intermediate outputs; {collection.run_conditions([run])}; the generator's convolution weights, "
        f"{len(steps)} records over {max(steps)} steps, the histograms over the last quarter of them; "
        f"{collection.environment()}"
    )
    command = collection.command("figures/figures.json")
    return [
        _save(_histogram(frames), folder, "fig2_gradients", "Fig. 2: gradient distribution", caption, command),
        _save(_depth(frames), folder, "gradient_depth", "Gradient norm by depth", caption, command),
    ]


def _histogram(frames: dict[str, pd.DataFrame]) -> Figure:
    """As in the paper: the distribution of all gradients, without and with; and beyond it their sizes, together.

    Taken over the last quarter of the records. Both histograms have the same axes.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
    colours = dict(zip(_VARIANTS, sns.color_palette(), strict=False))
    bins = {variant: _last_bins(frames[variant]) for variant in _VARIANTS}
    limit = max(_quantile(frame, 0.99) for frame in bins.values())
    edges = np.linspace(-limit, limit, 82)
    for axis, (variant, label) in zip(axes, _VARIANTS.items(), strict=False):
        frame = bins[variant]
        axis.bar(edges[:-1], _rebin(frame, edges), np.diff(edges), align="edge", color=colours[variant], linewidth=0)
        axis.set(title=label, xlabel="gradient", yscale="log")
        sizes = frame.assign(
            low=frame[["low", "high"]].abs().min(axis=1), high=frame[["low", "high"]].abs().max(axis=1)
        )
        decades = np.logspace(-8, 2, 41)
        axes[2].stairs(_rebin(sizes, decades), decades, color=colours[variant], label=label, linewidth=1.5)
    shared = [axis.get_ylim() for axis in axes[:2]]
    for axis in axes[:2]:
        axis.set_ylim(max(min(low for low, _ in shared), 1e-3), max(high for _, high in shared))
    axes[0].set_ylabel("share of the gradients (%)")
    axes[2].set(title="their sizes", xlabel="|gradient|", xscale="log")
    axes[2].legend(fontsize=7, loc="upper left")
    axes[2].margins(y=0.35)
    return figure


def _last_bins(frame: pd.DataFrame) -> pd.DataFrame:
    bins = frame[frame["kind"] == "bin"]
    steps = sorted(bins["step"].unique())
    last = bins[bins["step"] >= steps[-max(1, len(steps) // 4)]]
    return last.groupby(["low", "high"])["count"].sum().reset_index()


def _quantile(bins: pd.DataFrame, share: float) -> float:
    """The size below which `share` of the gradients lie."""
    sizes = bins.assign(size=bins[["low", "high"]].abs().max(axis=1)).sort_values("size")
    return float(sizes["size"].iloc[int(np.searchsorted(sizes["count"].cumsum(), share * sizes["count"].sum()))])


def _rebin(bins: pd.DataFrame, edges: np.ndarray) -> np.ndarray:
    """Per cent of the gradients between `edges`; a recorded bin is spread evenly over its width."""
    bins = bins.sort_values("low")
    points = np.unique(bins[["low", "high"]].to_numpy())
    mass = np.zeros(len(points))
    for low, high, count in bins[["low", "high", "count"]].itertuples(index=False):
        inside = (points > low) & (points <= high)
        mass[inside] += count * np.diff(points, prepend=points[0])[inside] / (high - low)
    cumulative = np.interp(edges, points, mass.cumsum())
    return 100 * np.diff(cumulative) / mass.sum()


def _depth(frames: dict[str, pd.DataFrame]) -> Figure:
    """Root mean square gradient per layer from input to output, and its course over the training."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    colours = dict(zip(_VARIANTS, sns.color_palette(), strict=False))
    for variant, label in _VARIANTS.items():
        layers = frames[variant].query("kind == 'layer'").copy()
        layers["rms"] = layers["norm"] / np.sqrt(layers["count"])
        body = layers[~layers["layer"].str.startswith("heads")]
        mean = body.groupby("layer", sort=False)["rms"].median()
        style = {
            "color": colours[variant],
            "label": label,
            "marker": "o" if variant == "with" else "s",
            "markersize": 3,
        }
        axes[0].plot(range(len(mean)), mean.to_numpy(), **style)
        over_time = body.groupby("step")["rms"].median()
        axes[1].plot(over_time.index, over_time.to_numpy(), **style)
        names = [name.removesuffix(".weight").removesuffix(".0") for name in mean.index]
        axes[0].set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axes[0].set_title("by depth, median over the training", fontsize=9)
    axes[1].set_title("over the training, median layer", fontsize=9)
    axes[1].set_xlabel("step")
    for axis in axes:
        axis.set_yscale("log")
        axis.set_ylabel("RMS gradient")
    axes[1].legend(fontsize=7)
    return figure


def _qualitative_figures(collection: Collection, folder: Path) -> list[dict[str, str]]:
    made = []
    for dataset, entry in collection.datasets.items():
        rows = collection.runs_of(dataset)
        runs = [runs[0] for runs in rows.values() if (runs[0].folder / "predictions").is_dir()]
        # The trivial rows say something in a table, but nothing in a picture.
        runs = [run for run in runs if get_method(run.settings.method).trainable]
        if not runs:
            continue
        data = Path(runs[0].settings.data)
        pairs = read_manifest(data / "manifest.csv", "test")
        count = min(collection.settings["examples"], len(pairs))
        pairs = [pairs[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(count)]
        columns = {"source": [data / p.source for p in pairs], "target": [data / p.target for p in pairs]}
        columns |= {
            f"{run.title}\n{run.size}": [run.folder / "predictions" / f"{p.id}.png" for p in pairs]
            for run in reversed(runs)
        }
        figure = _grid(columns, tuple(entry["size"]))
        title = f"Figs. 4 to 6: test pictures of {dataset}"
        conditions = "; ".join(collection.run_conditions([run]) for run in runs)
        caption = (
            f"{collection.data_conditions(dataset)}; test pictures at even spacing, not chosen; {conditions}; "
            f"{collection.environment()}"
        )
        command = collection.command("figures/figures.json")
        made.append(_save(figure, folder, f"qualitative_{dataset}", title, caption, command))
    return made


def _grid(columns: dict[str, list[Path]], size: tuple[int, int]) -> Figure:
    rows = len(next(iter(columns.values())))
    width = 1.9
    height = width * size[1] / size[0]
    shape = (width * len(columns), height * rows + 0.4)
    figure, axes = plt.subplots(rows, len(columns), figsize=shape, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    for j, (name, paths) in enumerate(columns.items()):
        axes[0][j].set_title(name, fontsize=9)
        for i, path in enumerate(paths):
            with Image.open(path) as image:
                axes[i][j].imshow(np.asarray(resize(image.convert("RGB"), size, "photo")), interpolation="lanczos")
            axes[i][j].axis("off")
    return figure
