"""`msgunet verify FOLDER`: shared results against one's own run of the same suite, or against the shared generators."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from tqdm import tqdm

from msgunet.core.attempts import measured_facts, trained_facts
from msgunet.core.errors import UserError
from msgunet.core.files import differences, sha256_file, write_csv
from msgunet.core.frames import read_frame
from msgunet.core.metrics import METRICS
from msgunet.core.text import printable
from msgunet.data.pairs import PairDataset
from msgunet.evaluation.evaluate import metrics_of
from msgunet.evaluation.trained import load_run
from msgunet.methods.generator import changed_settings
from msgunet.suite.plan import Plan, load_plan
from msgunet.suite.record import RECORD, SharedResults, SharedRun, read_shared
from msgunet.suite.runs import RunPlan

# How far the metrics of one generator can be apart on two devices, whose outputs differ by rounding
# (docs/report.md has the measurement).
TOLERANCE = {"psnr": 0.05, "ssim": 0.002, "vif": 0.005}
# Rows that a run lists, from the largest difference.
_LISTED = 5
_KEYS = ["dataset", "entry", "seed", "id", "protocol"]
# Changed values longer than this are not shown.
_LONGEST = 60


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


def verify_shared(folder: Path, images: int, out: Path | None) -> None:
    """Compare one's own run of a shared suite with the shared results, and print a line for each run.

    A run whose metrics are all the same numbers is equal. It is within tolerance if its generator is the shared one and
    its metrics differ by `TOLERANCE` at most. Another training of the same settings has another generator, unless
    device, threads and versions are the same. Where several trainings of an entry are shared, one's own are within
    tolerance if their mean lies where 95 % of the means of as many new trainings do (Student's t).

    Args:
        folder: written by `msgunet share`.
        images: instead of own trainings, let the shared generators translate this many test images; 0: none.
        out: CSV for all rows with both numbers, or None.

    Raises:
        UserError: a shared file was changed, there is nothing to compare yet, or something is different; all of it is
            listed.

    """
    record = read_shared(folder)
    problems = record.changed(folder)
    plan = _plan(folder, record, problems)
    shared = read_frame(folder / "metrics.csv")
    compared: dict[tuple[str, str, int], Compared] = {}
    for run in record.runs:
        own = next((own for own in plan.runs if _key(own) == run.key), None)
        name = _name(run.key)
        if own is None and any(other.settings.entry == run.key[1] and not other.trainable for other in plan.runs):
            # Earlier versions repeated reference rows for every seed.
            continue
        if own is None:
            problems.append(f"{name}: {folder / plan.name}.yaml has no such run")
            continue
        if other := _other_settings(run, own):
            problems.append(f"{name}: other settings ({other}), so the results cannot be compared")
            continue
        if "metrics_sha256" not in run.evaluation:
            problems.append(f"{name}: the shared results were evaluated before checksums were recorded")
            continue
        rows = shared[(shared[_KEYS[:3]] == list(run.key)).all(axis=1)]
        try:
            found = _by_generator(folder, run, own, plan, rows, images) if images else _by_own_run(run, own, plan, rows)
        except UserError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
            continue
        if found is None:
            print(f"{printable(name)}: not evaluated here yet")
        else:
            compared[run.key] = found
    if not (compared or problems):
        raise UserError(
            f"there is nothing to compare yet; run 'snakemake --cores all --config suite={folder / plan.name}.yaml' "
            "first, or, if generators are shared, let them translate: --images N"
        )
    noise = _training_noise(shared, {key: found for key, found in compared.items() if not found.same_generator})
    for key, found in compared.items():
        explained = None if found.same_generator else noise.get(key[:2])
        print(printable("\n".join(_lines(key, found, explained))), flush=True)
        if found.verdict == "different" and not (explained and explained[0]):
            problems.append(f"{_name(key)}: different")
    if out is not None and compared:
        write_csv(out, pd.concat([found.rows for found in compared.values()]).to_dict("records"))
    if problems:
        raise UserError(*problems)


def _plan(folder: Path, record: SharedResults, problems: list[str]) -> Plan:
    suite = folder / f"{record.suite}.yaml"
    try:
        return load_plan(str(suite))
    except UserError as error:
        copies = [f"the shared method: cp {folder / copy} {file}" for file, copy in record.methods.items()]
        raise UserError(*problems, *error.problems, *copies) from error


def _changed_predictions(folder: Path, rows: pd.DataFrame) -> None:
    """Raise UserError if predictions are not those that were evaluated."""
    files = rows.drop_duplicates("prediction")
    changed = [
        name
        for name, checksum in zip(files["prediction"], files["prediction_sha256"], strict=True)
        if not (folder / name).is_file() or sha256_file(folder / name) != checksum
    ]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(f"{folder / changed[0]}{more} changed after the evaluation")


def _key(run: RunPlan) -> tuple[str, str, int]:
    return run.settings.dataset, run.settings.entry, run.settings.seed


def _other_settings(run: SharedRun, own: RunPlan) -> str:
    """Return where the settings of two runs differ, or an empty string."""
    texts = []
    for place, there, here in differences(run.settings, own.settings.model_dump(mode="json")):
        if place == "code":
            texts.append(f"another method file: the code of {own.settings.file} has the hash {here}, not {there}")
        elif len(f"{there}{here}") <= _LONGEST:
            texts.append(f"{place} {there} → {here}")
        else:
            texts.append(f"{place} has changed")
    return "; ".join(texts)


def _by_own_run(run: SharedRun, own: RunPlan, plan: Plan, shared: pd.DataFrame) -> Compared | None:
    """Compare the shared rows of a run with those of one's own; None if it is not evaluated yet."""
    facts = measured_facts(own.folder, own.settings, plan.suite.evaluation)
    generator = own.folder / "generator.safetensors"
    if not facts:
        if found := changed_settings(generator, own.settings):
            changes = ", ".join(f"{place} {now} → {before}" for place, before, now in found)
            raise UserError(f"trained here with other settings ({changes}), so the results cannot be compared")
        return None
    path = own.folder / "metrics.csv"
    if "metrics_sha256" not in facts:
        raise UserError("it was evaluated here before checksums were recorded; evaluate again to have them")
    if sha256_file(path) != facts["metrics_sha256"]:
        raise UserError(f"{path} was changed after the evaluation")
    if sha256_file(generator) != facts["generator_sha256"]:
        raise UserError(f"{generator} is not the one that was evaluated")
    if facts["manifest_sha256"] != run.evaluation["manifest_sha256"]:
        raise UserError("the prepared images are not the shared ones: the checksums of the manifests differ")
    same = facts["generator_sha256"] == run.evaluation["generator_sha256"]
    trained = trained_facts(own.folder, own.settings)
    pairs = [(run.evaluation, facts)] if same else [(run.training, trained), (run.evaluation, facts)]
    conditions = dict.fromkeys(text for there, here in pairs for text in _conditions(there, here))
    if same:
        why = "the same generator"
    else:
        why = "another training" if conditions else "another training, although its conditions are the same"
    rows = read_frame(path)
    _changed_predictions(own.folder, rows)
    return _compare(shared, rows, same, "; ".join([why, *conditions]))


def _conditions(there: dict, here: dict) -> Iterator[str]:
    """Yield what differs between the conditions of two results: device, threads, versions, commit."""
    keys = ("device", "threads", "versions", "commit")
    for place, before, now in differences({k: there.get(k) for k in keys}, {k: here.get(k) for k in keys}):
        yield f"{place.removeprefix('versions.')} {before} → {now}"


def _by_generator(
    folder: Path, run: SharedRun, own: RunPlan, plan: Plan, shared: pd.DataFrame, images: int
) -> Compared:
    """Let a shared generator translate the first test images here, and compare the metrics with the shared rows."""
    generator = folder / run.weights
    if not generator.is_file():
        raise UserError(f"there is no {generator}; 'msgunet share --weights' shares generators, too")
    if sha256_file(generator) != run.evaluation["generator_sha256"]:
        raise UserError(f"{generator} is not the generator that was evaluated")
    data = Path(own.settings.data)
    manifest = data / "manifest.csv"
    if not manifest.is_file():
        command = f"snakemake --cores all --config suite={folder / plan.name}.yaml --until prepare"
        raise UserError(f"its images are not prepared here yet; '{command}' does it")
    if sha256_file(manifest) != run.evaluation["manifest_sha256"]:
        raise UserError("the prepared images are not the shared ones: the checksums of the manifests differ")
    settings = own.settings
    model = load_run(settings, folder / RECORD, generator, plan.machine, plan.suite.evaluation.precision)
    pairs = PairDataset(data, "test", settings.size, settings.kinds, settings.formats, settings.resampling)
    rows = []
    for index in tqdm(range(min(images, len(pairs))), f"verify {_name(run.key)}", unit="image", disable=None):
        output = model.translated(pairs.images(index)[0], pairs.pairs[index].id)
        rows += metrics_of(settings, pairs, index, output, plan.suite.evaluation)
    here = pd.DataFrame(rows)
    return _compare(shared[shared["id"].isin(here["id"])], here, True, "the shared generator")


def _compare(shared: pd.DataFrame, own: pd.DataFrame, same_generator: bool, why: str) -> Compared:
    """Compare rows of metrics that belong to the same images and protocols."""
    metrics = [metric for metric in METRICS if metric in shared and metric in own]
    rows = shared[[*_KEYS, *metrics]].merge(
        own[["id", "protocol", *metrics]], "outer", ["id", "protocol"], suffixes=("_shared", "_own"), indicator=True
    )
    there, here = (rows[[f"{m}_{side}" for m in metrics]].to_numpy(float) for side in ("shared", "own"))
    both = (rows.pop("_merge") == "both").to_numpy()
    equal = (there == here) | (np.isnan(there) & np.isnan(here))
    near = equal | ((np.abs(there - here) <= [TOLERANCE[m] for m in metrics]) & same_generator)
    rows["verdict"] = np.select([both & equal.all(1), both & near.all(1)], ["equal", "within tolerance"], "different")
    rows[_KEYS[:3]] = shared[_KEYS[:3]].iloc[0].to_list()
    verdict = next(word for word in ("different", "within tolerance", "equal") if (rows["verdict"] == word).any())
    return Compared(verdict, rows, why, same_generator)


def _training_noise(
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
                    f"{protocol} {metric.upper()} {_number(metric, difference, '+')} (±{_number(metric, reach)})"
                )
        word = "within" if explained else "beyond"
        result[dataset, entry] = explained, f"{word} the training noise of the shared seeds: {', '.join(texts)}"
    return result


def _lines(key: tuple[str, str, int], found: Compared, noise: tuple[bool, str] | None) -> Iterator[str]:
    """Yield the lines on a run: the verdict, and unless it is equal, its means and largest differences."""
    rows, count = found.rows, (found.rows["verdict"] == found.verdict).sum()
    yield f"{_name(key)}: {found.verdict}, {count} of {len(rows)} rows ({found.why})"
    if found.verdict == "equal":
        return
    metrics = [metric for metric in METRICS if f"{metric}_own" in rows]
    for protocol, part in rows.groupby("protocol", sort=False):
        yield f"  mean, {protocol} protocol: {_change(part.mean(numeric_only=True), metrics)}"
    gaps = (rows[f"{metrics[0]}_own"] - rows[f"{metrics[0]}_shared"]).abs().fillna(np.inf)
    listed = rows[rows["verdict"] == found.verdict].loc[lambda part: gaps[part.index].nlargest(_LISTED).index]
    for _, row in listed.iterrows():
        yield f"  {row['id']}, {row['protocol']} protocol: {_change(row, metrics)}"
    if count > _LISTED:
        yield f"  and {count - _LISTED} more rows; --out CSV writes all of them"
    if noise and found.verdict == "different":
        yield f"  {noise[1]}"


def _change(row: pd.Series, metrics: list[str]) -> str:
    return ", ".join(f"{m.upper()} {_number(m, row[f'{m}_shared'])} → {_number(m, row[f'{m}_own'])}" for m in metrics)


def _number(metric: str, value: float, sign: str = "") -> str:
    # Two digits more than in tables, since small differences are what matters here.
    return "none" if np.isnan(value) else f"{value:{sign}.{METRICS[metric].digits + 2}f}"


def _name(key: tuple[str, str, int]) -> str:
    return "{1} on {0}, seed {2}".format(*key)
