"""The paper's claims about MSG U-Net, compared with the measurements of a suite."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from msgunet.core.metrics import METRICS, PAPERS
from msgunet.core.provenance import device_of
from msgunet.core.table import Table
from msgunet.report.collect import Collection
from msgunet.report.costs import paper_networks
from msgunet.report.published import other_network, published
from msgunet.report.statistics import LEVEL, fewest_images, least_p
from msgunet.report.summary import unlearned

HOLDS, PARTLY, FAILS = "holds", "holds in part", "does not hold"
FEW, OPEN, OTHER = "too few images", "not measured", "not tested"
# The share of a claimed factor that must be reached: the paper says "nearly" and "about".
_FACTOR_SHARE = 0.9
# The largest drop in SSIM with inputs of half the size that counts as "not much degraded".
_SSIM_DROP = 0.02
# How many times larger gradients with intermediate outputs must be, for those without to be "very close to zero".
_GRADIENT_RATIO = 2.0
# The columns of operations, time and memory in the paper's figures, and in the cost and speed tables.
_PAPER = {"operations": "tflop", "time": "relative_time", "memory": "memory_gb"}
_COLUMNS = {
    "operations": ("tflop", None),
    "time": ("latency_ms", "median_ms"),
    "memory": ("peak_memory_mib", "peak_memory_mib"),
}


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        claim: the claim in a few words.
        place: where the paper makes it.
        on: the networks, data and sizes compared here.
        measured: the result; empty if there is none.
        verdict: whether the claim holds, or why this is open.

    """

    claim: str
    place: str
    on: str
    measured: str = ""
    verdict: str = OPEN


def claims_frame(collection: Collection, pairs: pd.DataFrame, ablation: pd.DataFrame) -> pd.DataFrame:
    """Return one row per claim and comparison of this suite."""
    rows = [
        *efficiency(collection.cost(), collection.speed()),
        *_quality(collection, pairs),
        *_smaller_inputs(collection, ablation),
        *_gradients(collection),
    ]
    columns = ["claim", "place", "on", "measured", "verdict"]
    return pd.DataFrame([vars(claim) for claim in rows], columns=columns).assign(suite=collection.suite)


def claims_table(frame: pd.DataFrame, collection: Collection) -> Table:
    """Return the formatted table of claims."""
    tables = (collection.speed(), collection.cost())
    measured = next((t for t in tables if t is not None and {"median_ms", "latency_ms"} & {*t}), None)
    rows = [[row.claim, row.verdict, row.measured or "–", row.on, row.place] for row in frame.itertuples()]
    verdicts = frame["verdict"].value_counts()
    counts = ", ".join(
        f"{word}: {verdicts[word]}" for word in (HOLDS, PARTLY, FAILS, FEW, OPEN, OTHER) if word in verdicts
    )
    deficits = published_deficits()
    notes = [
        f"{len(frame)} claims: {counts}" if len(frame) else "None of the paper's claims applies to this suite.",
        "A verdict applies to this suite's networks, data and trainings under the conditions listed with them. A claim "
        "holds in part if only some of its metrics or precisions fulfil it.",
        "Operations, time and memory are given as Pix2Pix-HD's value divided by MSG U-Net's. A claim holds if at least "
        f"{_FACTOR_SHARE:.0%} of the paper's factor is reached in every precision. Times and memory are for one image "
        "with this project's engine.",
        *([] if measured is None else [f"Times and memory were measured on {device_of(measured)}."]),
        "'Better' holds if MSG U-Net is better in PSNR, SSIM and VIF, each with a star. A star means a significant "
        f"difference as in the tables of differences: p below {LEVEL:g} in Wilcoxon's signed-rank test on the same "
        f"images with Holm's correction (this needs at least {fewest_images(1)} images for two methods and "
        f"{fewest_images(6)} for four), zero "
        "outside the 95 % interval, and all trainings agree on the sign.",
        "At the paper's size and data, a claim is not tested if the options make another network than the paper's. "
        "Elsewhere, the networks are the suite's own, so a verdict says nothing about those of the paper.",
        "Methods of one size are compared in the native protocol, as in the paper; methods of different sizes in the "
        "full protocol, on the same targets.",
        *unlearned(collection),
        _seeds_note(collection),
        "'Close to Pix2Pix-HD' holds if MSG U-Net is behind in no metric by more than in the paper's own Table 1 ("
        + ", ".join(f"{METRICS[name].name} {_signed(name, deficits[name])}" for name in deficits)
        + ").",
        f"'As good' (in the paper: 'not much degraded') holds if SSIM at full size drops by at most {_SSIM_DROP:g}.",
        "Gradients: root mean square of each layer over the last quarter of the records, then the median over layers "
        f"that both variants have. The claim holds if the ratio is at least {_GRADIENT_RATIO:g}.",
        *(note for dataset in collection.datasets for note in collection.unfinished(dataset)),
        collection.environment(),
    ]
    columns = ["Claim of the paper", "Verdict", "Measured", "Comparison", "In the paper"]
    return Table("claims", "The paper's claims", columns, rows, notes, collection.command("tables/claims.csv"))


def _seeds_note(collection: Collection) -> str:
    rows = [runs for dataset in collection.datasets for runs in collection.runs_of(dataset).values()]
    counts = sorted({len(runs) for runs in rows if runs[0].trainable})
    if counts == [1]:
        return (
            "One training of each method: nothing is known of training noise, and another training could reverse any "
            "verdict on quality."
        )
    return f"Trainings of each method: {' or '.join(map(str, counts))}."


def efficiency(cost: pd.DataFrame | None, speed: pd.DataFrame | None) -> Iterator[Claim]:
    """Yield the claims on operations, time and memory, against both networks of Pix2Pix-HD at 2048x1024."""
    ratios = {name: _ratios(cost, speed, *columns) for name, columns in _COLUMNS.items()}
    if not any(ratios.values()):
        return
    paper = published("complexity").set_index("method")
    factors = paper.loc["pix2pixhd", list(_PAPER.values())] / paper.loc["msgunet", list(_PAPER.values())]
    claims = {
        "operations": "needs 2.5 times fewer operations",
        "time": "is nearly 2.5 times faster",
        "memory": "needs half the memory",
    }
    networks = ("global generator", "with the local enhancer")
    for quantity, claim in claims.items():
        for index, network in enumerate(networks):
            measured = {precision: pair[index] for precision, pair in ratios[quantity].items()}
            text = ", ".join(f"{value:.2f}×{precision and f' ({precision})'}" for precision, value in measured.items())
            reached = [value >= _FACTOR_SHARE * factors[_PAPER[quantity]] for value in measured.values()]
            on = f"Pix2Pix-HD at 2048×1024, {network}"
            yield Claim(f"MSG U-Net {claim}", str(paper["place"].iloc[0]), on, text, _verdict(reached))


def _ratios(
    cost: pd.DataFrame | None, speed: pd.DataFrame | None, cost_column: str, speed_column: str | None
) -> dict[str, tuple[float, float]]:
    """Return by precision the cost of the global generator and of that with the enhancer, over MSG U-Net's cost."""
    ratios = {}
    networks = None if cost is None or cost_column not in cost else paper_networks(cost[cost["part"] == "generator"])
    if networks is not None:
        ratios["fp32" if speed_column else ""] = _over_first([row[cost_column] for row in networks])
    if speed is not None and speed_column is not None:
        engine = speed[(speed["part"] == "inference") & (speed["way"] == "engine")]
        for precision, rows in engine.groupby("precision", sort=False):
            networks = paper_networks(rows)
            if networks is not None:
                ratios[str(precision)] = _over_first([row[speed_column] for row in networks])
    return ratios


def _over_first(values: Sequence[float]) -> tuple[float, float]:
    return values[1] / values[0], values[2] / values[0]


def _quality(collection: Collection, pairs: pd.DataFrame) -> Iterator[Claim]:
    """Yield the claims on quality: MSG U-Net against each other method on every data set."""
    paper = published("table1").set_index(["dataset", "method", "width", "height"]).index
    for dataset, entry in collection.datasets.items():
        rows = collection.runs_of(dataset)
        settings = {name: runs[0].settings for name, runs in rows.items()}
        methods = {name: one.method for name, one in settings.items() if not collection.is_variant(one)}
        for ours in (name for name, method in methods.items() if method == "msgunet"):
            for other, method in methods.items():
                if method not in ("pix2pix", "pan", "pix2pixhd"):
                    continue
                better = method != "pix2pixhd" or entry["kind"] == "cityscapes"
                claim = (
                    f"{collection.titles[ours]} is {'better than' if better else 'close to'} {collection.titles[other]}"
                )
                both = [settings[name] for name in (ours, other)]
                in_paper = all((entry["kind"], s.method, *s.size) in paper for s in both)
                others = [
                    f"{collection.titles[s.entry]}: {text}" for s in both if in_paper and (text := other_network(s))
                ]
                sizes = " and ".join(dict.fromkeys("{}×{}".format(*s.size) for s in both))
                # The paper compares each method at its own size; between sizes, only the full protocol is fair.
                protocol = "native" if both[0].size == both[1].size else "full"
                differences, few = _differences(pairs, dataset, protocol, ours, other)
                remark = f"not the paper's networks: {'; '.join(others)}" if others else ""
                if not in_paper:
                    remark = "not in the paper"
                verdict = _better if better else _close
                measured = [
                    f"{METRICS[m].name} {_signed(m, d)}{'*' if significant else ''}"
                    for m, (d, significant) in differences.items()
                ]
                yield Claim(
                    claim,
                    "Table 1" if better else "Section 4",
                    f"{dataset}, {sizes}, {protocol} protocol{remark and f' ({remark})'}",
                    ", ".join([*measured, few] if few and better else measured),
                    OTHER if others else FEW if few and better else verdict(differences),
                )


def _differences(
    pairs: pd.DataFrame, dataset: str, protocol: str, ours: str, other: str
) -> tuple[dict[str, tuple[float, bool]], str]:
    """Return by metric of the paper our value minus the other's and whether it is significant.

    The second value says how many images are missing for any significant difference; it is empty if there are enough.
    """
    differences, few = {}, ""
    tested = pairs[(pairs["dataset"] == dataset) & (pairs["protocol"] == protocol) & pairs["metric"].isin(PAPERS)]
    for row in tested.to_dict("records"):
        if {row["first"], row["second"]} == {ours, other} and pd.notna(row["difference"]):
            sign = 1 if row["first"] == ours else -1
            differences[row["metric"]] = (sign * row["difference"], row["significant"])
            tests = ((tested["metric"] == row["metric"]) & tested["difference"].notna()).sum()
            if least_p(row["images"], tests) >= LEVEL:
                few = f"{row['images']} images of at least {fewest_images(tests)}"
    return (differences, few) if len(differences) == len(PAPERS) else ({}, "")


def _better(differences: Mapping[str, tuple[float, bool]]) -> str:
    return _verdict([difference > 0 and significant for difference, significant in differences.values()])


def _close(differences: Mapping[str, tuple[float, bool]]) -> str:
    deficits = published_deficits()
    return _verdict([d >= deficits[m] - 0.5 * 10 ** -METRICS[m].digits for m, (d, _) in differences.items()])


def published_deficits() -> dict[str, float]:
    """Return by metric the paper's largest deficit of MSG U-Net to Pix2Pix-HD on the data sets where it is close."""
    paper = published("table1").set_index(["method", "dataset"])
    close = [kind for kind in ("nyu", "maps") if ("msgunet", kind) in paper.index]
    behind = paper.loc[[("msgunet", kind) for kind in close], list(PAPERS)].to_numpy()
    ahead = paper.loc[[("pix2pixhd", kind) for kind in close], list(PAPERS)].to_numpy()
    return dict(zip(PAPERS, (behind - ahead).min(axis=0), strict=True))


def _smaller_inputs(collection: Collection, ablation: pd.DataFrame) -> Iterator[Claim]:
    """Yield the claims on outputs at full size from inputs of half the size."""
    for dataset, name in collection.ablated():
        settings = collection.runs_of(dataset)[name][0].settings
        if settings.method != "msgunet" or collection.is_variant(settings):
            continue
        width, height = settings.size
        cells = ablation[(ablation["dataset"] == dataset) & (ablation["entry"] == name)]
        cells = cells[(cells["output_width"] == width) & (cells["output_height"] == height)]
        by_input = cells.set_index("input_width")["ssim"].astype(float)
        full, half = (by_input.get(side, np.nan) for side in (width, width // 2))
        known = not np.isnan(full - half)
        yield Claim(
            f"{collection.titles[name]} is as good with inputs of half the size",
            "Tables 2 and 3",
            f"{dataset}, {width // 2}×{height // 2} → {width}×{height}",
            f"SSIM {full:.3f} → {half:.3f}" if known else "",
            _verdict([full - half <= _SSIM_DROP] if known else []),
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
        f"{run.title} has near-zero gradients without intermediate outputs",
        "Fig. 2",
        f"{run.settings.dataset}, {'{}×{}'.format(*run.settings.size)}",
        "" if ratio is None else "zero without them" if ratio == np.inf else f"{ratio:.2f} times larger with them",
        _verdict([] if ratio is None or np.isnan(ratio) else [ratio >= _GRADIENT_RATIO]),
    )


def _layers(frame: pd.DataFrame | None) -> pd.Series | None:
    """Return the root mean square gradient of each layer over the last quarter of the records."""
    if frame is None:
        return None
    layers = frame[frame["kind"] == "layer"]
    steps = sorted(layers["step"].unique())
    last = layers[layers["step"] >= steps[-max(1, len(steps) // 4)]]
    return np.sqrt((last["norm"] ** 2 / last["count"]).groupby(last["layer"]).mean())


def _signed(metric: str, difference: float) -> str:
    return f"{difference:+.{METRICS[metric].digits}f}{METRICS[metric].unit}".replace("-", "−")


def _verdict(fulfilled: Sequence[bool]) -> str:
    if not fulfilled:
        return OPEN
    return HOLDS if all(fulfilled) else PARTLY if any(fulfilled) else FAILS
