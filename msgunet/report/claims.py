"""What the paper claims of MSG U-Net, in words, and what was measured here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from msgunet.core.provenance import device_of
from msgunet.core.table import Table
from msgunet.report.collect import Collection
from msgunet.report.costs import paper_networks
from msgunet.report.published import published
from msgunet.report.statistics import LEVEL

HOLDS, PARTLY, FAILS = "holds", "holds in part", "does not hold"
FEW, OPEN = "too few images", "not measured"
# A factor holds from so much of it on: the paper says "nearly" and "about".
_NEARLY = 0.9
# By how much SSIM may fall where inputs are halved, for results to be "not much degraded".
_LITTLE = 0.02
# How many times larger gradients must be, not to be "very close to zero".
_CLEARLY = 2.0
_UNITS = {"psnr": " dB"}
_DIGITS = {"psnr": 2, "ssim": 3, "vif": 3}
# Where operations, time and memory stand in the paper's figures, in the cost table and in that of speeds.
_PAPER = {"operations": "tflop", "time": "relative_time", "memory": "memory_gb"}
_COLUMNS = {
    "operations": ("tflop", None),
    "time": ("latency_ms", "median_ms"),
    "memory": ("peak_memory_mib", "peak_memory_mib"),
}


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: its `place` there, what it is `on`, what was `measured`, and the `verdict`."""

    claim: str
    place: str
    on: str
    measured: str = ""
    verdict: str = OPEN


def claims_frame(collection: Collection, pairs: pd.DataFrame, ablation: pd.DataFrame) -> pd.DataFrame:
    """One row per claim and what it is about in this suite."""
    found = [
        *efficiency(collection.cost(), collection.speed()),
        *_quality(collection, pairs),
        *_smaller_inputs(collection, ablation),
        *_gradients(collection),
    ]
    columns = ["claim", "place", "on", "measured", "verdict"]
    return pd.DataFrame([vars(claim) for claim in found], columns=columns).assign(suite=collection.suite)


def claims_table(frame: pd.DataFrame, collection: Collection) -> Table:
    """The claims for reading."""
    tables = (collection.speed(), collection.cost())
    measured = next((t for t in tables if t is not None and {"median_ms", "latency_ms"} & {*t}), None)
    rows = [[row.claim, row.verdict, row.measured or "–", row.on, row.place] for row in frame.itertuples()]
    verdicts = frame["verdict"].value_counts()
    counts = ", ".join(f"{word} {verdicts[word]}" for word in (HOLDS, PARTLY, FAILS, FEW, OPEN) if word in verdicts)
    far = published_deficits()
    notes = [
        f"{len(frame)} claims: {counts}" if len(frame) else "this suite has nothing that the paper makes claims of",
        f"a factor holds from {_NEARLY:.0%} of it on, in every precision; times and memory are of one image, by the "
        "engine of this project",
        "a verdict is about this suite's networks, data and trainings, as its conditions name them",
        "better: by all metrics, in the native protocol as in the paper, each with a star: Wilcoxon's signed-rank "
        f"test on the same images (Holm's correction) is below {LEVEL:g}, which takes six images or more for two "
        "methods, eight for four",
        *([] if measured is None else [f"times and memory on {device_of(measured)}"]),
        "close to Pix2Pix-HD: by no metric further behind than in the paper's own Table 1 ("
        + ", ".join(f"{name.upper()} {_signed(name, far[name])}" for name in far)
        + ")",
        f'as good (the paper: "not much degraded"): SSIM at full size falls by no more than {_LITTLE:g}',
        "gradients: root mean square of each layer, median over the layers that both variants have, in the last "
        f"quarter of the records; it holds from {_CLEARLY:g} times on",
        *(note for dataset in collection.datasets for note in collection.unfinished(dataset)),
        collection.environment(),
    ]
    columns = ["The paper's claim", "Here it", "Measured", "On", "Place"]
    return Table("claims", "The paper's claims", columns, rows, notes, collection.command("tables/claims.csv"))


def efficiency(cost: pd.DataFrame | None, speed: pd.DataFrame | None) -> Iterator[Claim]:
    """Operations, time and memory against both networks that Pix2Pix-HD has at 2048x1024."""
    ratios = {name: _ratios(cost, speed, *columns) for name, columns in _COLUMNS.items()}
    if not any(ratios.values()):
        return
    paper = published("complexity").set_index("method")
    factors = paper.loc["pix2pixhd", list(_PAPER.values())] / paper.loc["msgunet", list(_PAPER.values())]
    claims = {
        "operations": "2.5 times fewer operations",
        "time": "nearly 2.5 times faster",
        "memory": "half the memory",
    }
    networks = ("its global generator", "with the local enhancer")
    for what, claim in claims.items():
        for index, network in enumerate(networks):
            found = {precision: pair[index] for precision, pair in ratios[what].items()}
            text = ", ".join(
                f"{value:.2f} times as much{precision and f' ({precision})'}" for precision, value in found.items()
            )
            good = [value >= _NEARLY * factors[_PAPER[what]] for value in found.values()]
            on = f"Pix2Pix-HD at 2048×1024, {network}"
            yield Claim(f"MSG U-Net: {claim}", str(paper["place"].iloc[0]), on, text, _verdict(good))


def _ratios(
    cost: pd.DataFrame | None, speed: pd.DataFrame | None, of_cost: str, of_speed: str | None
) -> dict[str, tuple[float, float]]:
    """By precision: the global generator and the one with the enhancer, as multiples of MSG U-Net."""
    found = {}
    three = None if cost is None or of_cost not in cost else paper_networks(cost[cost["part"] == "generator"])
    if three is not None:
        found["fp32" if of_speed else ""] = _over_first([row[of_cost] for row in three])
    if speed is not None and of_speed is not None:
        engine = speed[(speed["part"] == "inference") & (speed["way"] == "engine")]
        for precision, rows in engine.groupby("precision", sort=False):
            three = paper_networks(rows)
            if three is not None:
                found[str(precision)] = _over_first([row[of_speed] for row in three])
    return found


def _over_first(values: Sequence[float]) -> tuple[float, float]:
    return values[1] / values[0], values[2] / values[0]


def _quality(collection: Collection, pairs: pd.DataFrame) -> Iterator[Claim]:
    """MSG U-Net against each of the others on every data set."""
    paper = published("table1").set_index(["dataset", "method", "width", "height"]).index
    for dataset, entry in collection.datasets.items():
        rows = collection.runs_of(dataset)
        methods = {name: runs[0].settings.method for name, runs in rows.items()}
        for ours in (name for name, method in methods.items() if method == "msgunet"):
            for other, method in methods.items():
                if method not in ("pix2pix", "pan", "pix2pixhd"):
                    continue
                better = method != "pix2pixhd" or entry["kind"] == "cityscapes"
                claim = (
                    f"{collection.titles[ours]}: {'better than' if better else 'close to'} {collection.titles[other]}"
                )
                both = [rows[name][0].settings for name in (ours, other)]
                there = all((entry["kind"], s.method, *s.size) in paper for s in both)
                sizes = " and ".join(dict.fromkeys("{}×{}".format(*s.size) for s in both))
                differences, enough = _differences(pairs, dataset, ours, other)
                yield Claim(
                    claim,
                    "Table 1" if better else "Section 4",
                    f"{dataset}, {sizes}{'' if there else ' (not in the paper)'}",
                    ", ".join(
                        f"{m.upper()} {_signed(m, d)}{'*' if sure else ''}" for m, (d, sure) in differences.items()
                    ),
                    FEW if better and not enough else (_better if better else _close)(differences),
                )


def _differences(
    pairs: pd.DataFrame, dataset: str, ours: str, other: str
) -> tuple[dict[str, tuple[float, bool]], bool]:
    """By metric: ours less the other's, and whether the test is sure of it; and whether it could be of anything."""
    found, enough = {}, True
    here = pairs[(pairs["dataset"] == dataset) & (pairs["protocol"] == "native")]
    for row in here.to_dict("records"):
        if {row["first"], row["second"]} == {ours, other} and pd.notna(row["difference"]):
            sign = 1 if row["first"] == ours else -1
            found[row["metric"]] = (sign * row["difference"], row["p_holm"] < LEVEL)
            # The least that the test can say: two-sided, all images on one side, corrected for all pairs of methods.
            tests = (here["metric"] == row["metric"]) & here["difference"].notna()
            enough &= tests.sum() * 2.0 ** (1 - row["images"]) < LEVEL
    return (found, enough) if len(found) == len(_DIGITS) else ({}, True)


def _better(differences: Mapping[str, tuple[float, bool]]) -> str:
    return _verdict([difference > 0 and sure for difference, sure in differences.values()])


def _close(differences: Mapping[str, tuple[float, bool]]) -> str:
    far = published_deficits()
    return _verdict([d >= far[m] - 0.5 * 10 ** -_DIGITS[m] for m, (d, _) in differences.items()])


def published_deficits() -> dict[str, float]:
    """By metric: how far MSG U-Net lies behind Pix2Pix-HD in the paper at most, on the data sets where it is close."""
    paper = published("table1").set_index(["method", "dataset"])
    close = [kind for kind in ("nyu", "maps") if ("msgunet", kind) in paper.index]
    behind = paper.loc[[("msgunet", kind) for kind in close], list(_DIGITS)].to_numpy()
    ahead = paper.loc[[("pix2pixhd", kind) for kind in close], list(_DIGITS)].to_numpy()
    return dict(zip(_DIGITS, (behind - ahead).min(axis=0), strict=True))


def _smaller_inputs(collection: Collection, ablation: pd.DataFrame) -> Iterator[Claim]:
    """Outputs at full size from inputs of half the size."""
    for dataset, name in collection.ablated():
        if (settings := collection.runs_of(dataset)[name][0].settings).method != "msgunet":
            continue
        width, height = settings.size
        here = ablation[(ablation["dataset"] == dataset) & (ablation["entry"] == name)]
        here = here[(here["output_width"] == width) & (here["output_height"] == height)]
        by_input = here.set_index("input_width")["ssim"].astype(float)
        full, half = (by_input.get(side, np.nan) for side in (width, width // 2))
        known = not np.isnan(full - half)
        yield Claim(
            f"{collection.titles[name]}: as good from inputs of half the size",
            "Tables 2 and 3",
            f"{dataset}, {width // 2}×{height // 2} → {width}×{height}",
            f"SSIM {full:.3f} → {half:.3f}" if known else "",
            _verdict([full - half <= _LITTLE] if known else []),
        )


def _gradients(collection: Collection) -> Iterator[Claim]:
    if not collection.gradients:
        return
    run = collection.gradients[0]
    sizes = {run.folder.name: _layers(run.table("gradients.csv")) for run in collection.gradients}
    ratio = None
    if all(size is not None for size in sizes.values()):
        both = pd.concat(sizes, axis=1).dropna()
        larger, smaller = both["with"].median(), both["without"].median()
        ratio = np.inf if larger > smaller == 0 else larger / smaller
    yield Claim(
        f"{run.title}: near-zero gradients without intermediate outputs",
        "Fig. 2",
        f"{run.settings.dataset}, {'{}×{}'.format(*run.settings.size)}",
        "" if ratio is None else "zero without them" if ratio == np.inf else f"{ratio:.2f} times larger with them",
        _verdict([] if ratio is None or np.isnan(ratio) else [ratio >= _CLEARLY]),
    )


def _layers(frame: pd.DataFrame | None) -> pd.Series | None:
    """Root mean square gradient of each layer over the last quarter of the records."""
    if frame is None:
        return None
    layers = frame[frame["kind"] == "layer"]
    steps = sorted(layers["step"].unique())
    last = layers[layers["step"] >= steps[-max(1, len(steps) // 4)]]
    return np.sqrt((last["norm"] ** 2 / last["count"]).groupby(last["layer"]).mean())


def _signed(metric: str, difference: float) -> str:
    return f"{difference:+.{_DIGITS[metric]}f}{_UNITS.get(metric, '')}".replace("-", "−")


def _verdict(good: Sequence[bool]) -> str:
    if not good:
        return OPEN
    return HOLDS if all(good) else PARTLY if any(good) else FAILS
