"""Rows of metrics of a run compared with those of a shared one, and what the terminal says of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from msgunet.core.metrics import METRICS
from msgunet.core.text import LISTED

KEYS = ["dataset", "entry", "seed", "id", "protocol"]


@dataclass(frozen=True)
class Compared:
    """A run compared with the shared one.

    Attributes:
        verdict: `equal`, `within tolerance` or `different`.
        rows: one row per image and protocol, with `<metric>_shared`, `<metric>_own` and the row's `verdict`.
        why: whose generator it is, and what differs in the conditions.
        same_generator: whether both are results of the same generator, so that no training noise is between them.

    """

    verdict: str
    rows: pd.DataFrame
    why: str
    same_generator: bool


def compare(shared: pd.DataFrame, own: pd.DataFrame, same_generator: bool, why: str) -> Compared:
    """Compare rows of metrics that belong to the same images and protocols."""
    metrics = [metric for metric in METRICS if metric in shared and metric in own]
    rows = shared[[*KEYS, *metrics]].merge(
        own[["id", "protocol", *metrics]], "outer", ["id", "protocol"], suffixes=("_shared", "_own"), indicator=True
    )
    there, here = (rows[[f"{m}_{side}" for m in metrics]].to_numpy(float) for side in ("shared", "own"))
    both = (rows.pop("_merge") == "both").to_numpy()
    equal = (there == here) | (np.isnan(there) & np.isnan(here))
    near = equal | ((np.abs(there - here) <= [METRICS[m].across_devices for m in metrics]) & same_generator)
    rows["verdict"] = np.select([both & equal.all(1), both & near.all(1)], ["equal", "within tolerance"], "different")
    rows[KEYS[:3]] = shared[KEYS[:3]].iloc[0].to_list()
    verdict = next(word for word in ("different", "within tolerance", "equal") if (rows["verdict"] == word).any())
    return Compared(verdict, rows, why, same_generator)


def training_noise(
    shared: pd.DataFrame, compared: dict[tuple[str, str, int], Compared]
) -> dict[tuple[str, str], tuple[bool, str]]:
    """Return whether training noise explains one's own results, and a sentence on it.

    The keys are the data set and entry of each comparison for which several trainings are shared.
    """
    result = {}
    for dataset, entry in dict.fromkeys(key[:2] for key in compared):
        theirs = shared[(shared["dataset"] == dataset) & (shared["entry"] == entry)]
        if theirs["seed"].nunique() < 2:
            continue
        own = pd.concat([found.rows for key, found in compared.items() if key[:2] == (dataset, entry)])
        explained, texts = True, []
        for protocol in theirs["protocol"].unique():
            for metric in (m for m in METRICS if f"{m}_own" in own):
                before = theirs[theirs["protocol"] == protocol].groupby("seed")[metric].mean()
                now = own[own["protocol"] == protocol].groupby("seed")[f"{metric}_own"].mean()
                if before.isna().all() and now.isna().all():
                    continue  # undefined for such small images
                error = before.std(ddof=1) * np.sqrt(1 / len(before) + 1 / len(now))
                reach = float(stats.t.ppf(0.975, len(before) - 1) * error)
                difference = now.mean() - before.mean()
                explained &= bool(abs(difference) <= reach)
                texts.append(
                    f"{protocol} {METRICS[metric].name} {_number(metric, difference, '+')} (±{_number(metric, reach)})"
                )
        word = "within" if explained else "beyond"
        result[dataset, entry] = explained, f"{word} the training noise of the shared seeds: {', '.join(texts)}"
    return result


def lines_of(key: tuple[str, str, int], found: Compared, noise: tuple[bool, str] | None) -> Iterator[str]:
    """Yield the lines on a run: the verdict, and unless it is equal, its means and largest differences."""
    rows, count = found.rows, (found.rows["verdict"] == found.verdict).sum()
    yield f"{name_of(key)}: {found.verdict}, {count} of {len(rows)} rows ({found.why})"
    if found.verdict == "equal":
        return
    metrics = [metric for metric in METRICS if f"{metric}_own" in rows]
    for protocol, part in rows.groupby("protocol", sort=False):
        yield f"  mean, {protocol} protocol: {_change(part.mean(numeric_only=True), metrics)}"
    gaps = (rows[f"{metrics[0]}_own"] - rows[f"{metrics[0]}_shared"]).abs().fillna(np.inf)
    listed = rows[rows["verdict"] == found.verdict].loc[lambda part: gaps[part.index].nlargest(LISTED).index]
    for _, row in listed.iterrows():
        yield f"  {row['id']}, {row['protocol']} protocol: {_change(row, metrics)}"
    if count > LISTED:
        yield f"  and {count - LISTED} more rows; --out CSV writes all of them"
    if noise and found.verdict == "different":
        yield f"  {noise[1]}"


def _change(row: pd.Series, metrics: list[str]) -> str:
    return ", ".join(
        f"{METRICS[m].name} {_number(m, row[f'{m}_shared'])} → {_number(m, row[f'{m}_own'])}" for m in metrics
    )


def _number(metric: str, value: float, sign: str = "") -> str:
    # Two digits more than in tables, since small differences are what matters here.
    return "none" if np.isnan(value) else f"{value:{sign}.{METRICS[metric].digits + 2}f}"


def name_of(key: tuple[str, str, int]) -> str:
    """Return the name of a run in lines; `key`: data set, entry and seed."""
    return "{1} on {0}, seed {2}".format(*key)
