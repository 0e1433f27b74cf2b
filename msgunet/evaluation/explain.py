"""`msgunet explain`: where a number of Table 1 comes from, and the same number again."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from torch import nn

from msgunet.core.attempts import measured_facts
from msgunet.core.errors import UserError
from msgunet.core.files import sha256_file
from msgunet.core.frames import read_frame
from msgunet.core.metrics import METRICS
from msgunet.core.registry import suggest
from msgunet.core.settings import EvaluationSettings
from msgunet.data.images import read
from msgunet.data.pairs import PairDataset
from msgunet.evaluation.evaluate import metrics_of
from msgunet.evaluation.metrics import CPU
from msgunet.evaluation.metrics.networks import load_networks
from msgunet.evaluation.verify import agrees
from msgunet.suite.grid import grids, suggest_entry
from msgunet.suite.plan import Plan
from msgunet.suite.runs import RunPlan

# Images that a mean lists, from the worst value.
_LISTED = 3


def explain(plan: Plan, suite: str, entry: str, metric: str, image: str | None) -> Iterator[str]:
    """Yield lines on a metric of an entry: the files, the formula and the value again, for each run and protocol.

    Args:
        plan: the plan of the suite.
        suite: the suite's name or path, for advice.
        entry: name of the entry in the suite.
        metric: name of the metric.
        image: id of a test image; None explains the mean over all of them.

    Raises:
        UserError: there is no such entry, metric or image, or no evaluated run of the entry; or, after the last line,
            a value is not the recorded one.

    """
    entries = dict.fromkeys(run.settings.entry for run in plan.runs)
    if entry not in entries:
        names = {name: grid.entries for name, grid in grids(plan.suite.methods).items()}
        raise UserError(f"suite '{plan.name}' has no entry '{entry}'; {suggest_entry(entry, entries, names)}")
    if metric not in plan.suite.evaluation.metrics:
        raise UserError(
            f"there is no metric '{metric}' in this suite; {suggest(metric, plan.suite.evaluation.metrics)}"
        )
    planned = [run for run in plan.runs if run.settings.entry == entry]
    runs = [run for run in planned if measured_facts(run.folder, run.settings, plan.suite.evaluation)]
    if not runs:
        raise UserError(f"'{entry}' is not evaluated yet")
    better = "higher" if METRICS[metric].higher_is_better else "lower"
    yield f"{METRICS[metric].heading}, {better} is better: {METRICS[metric].formula}"
    networks = {} if image is None else load_networks((metric,), plan.machine, CPU)
    problems: list[str] = []
    for run in runs:
        yield ""
        yield f"{plan.label(run)} on {run.settings.dataset}"
        if image is None:
            yield from _explain_mean(plan, run, metric, problems)
        else:
            yield from _explain_image(plan, run, metric, image, networks, problems)
    if image is None and not problems:
        yield from _explain_trainings(plan, planned, runs, metric)
    if problems:
        raise UserError(*problems, f"'msgunet verify {shlex.quote(suite)}' checks every file and number")


def _explain_mean(plan: Plan, run: RunPlan, metric: str, problems: list[str]) -> Iterator[str]:
    path = run.folder / "metrics.csv"
    facts = measured_facts(run.folder, run.settings, plan.suite.evaluation)
    if facts.get("metrics_sha256") not in (None, sha256_file(path)):
        problems.append(f"{path} was changed after the evaluation, so its numbers prove nothing")
    yield f"  file: {path}, column {metric}"
    for protocol, rows in read_frame(path).groupby("protocol", sort=False):
        values = rows.set_index("id")[metric].dropna()
        if values.empty:
            yield f"  {protocol} protocol: undefined for every image"
            continue
        yield f"  {protocol} protocol: sum {values.sum():.10g} / {len(values)} images = {values.mean():.10g}"
        first, last = ("lowest", "highest") if METRICS[metric].higher_is_better else ("highest", "lowest")
        ordered = values.sort_values(ascending=METRICS[metric].higher_is_better, kind="stable")
        worst = ", ".join(f"{name} {value:.6g}" for name, value in ordered.iloc[:_LISTED].items())
        best = values[values == ordered.iloc[-1]].index[0]
        yield f"    {first}: {worst}; {last}: {best} {values[best]:.6g}"


def _explain_trainings(plan: Plan, planned: Sequence[RunPlan], runs: Sequence[RunPlan], metric: str) -> Iterator[str]:
    """Yield the number in Table 1 of each data set and protocol: the mean over trainings, once all are evaluated."""
    for dataset in dict.fromkeys(run.settings.dataset for run in runs):
        done = [run for run in runs if run.settings.dataset == dataset]
        count = sum(run.settings.dataset == dataset for run in planned)
        yield ""
        yield f"Table 1, {dataset}"
        if len(done) < count:
            yield f"  no number yet: {len(done)} of {count} trainings are evaluated"
            continue
        frames = {run.settings.seed: read_frame(run.folder / "metrics.csv") for run in done}
        for protocol in plan.suite.evaluation.protocols:
            columns = {
                seed: frame[frame["protocol"] == protocol].set_index("id")[metric] for seed, frame in frames.items()
            }
            # As Table 1 does, without images that have no value in some training.
            means = pd.DataFrame(columns).dropna().mean()
            if means.isna().any():
                yield f"  {protocol} protocol: undefined"
                continue
            mean, printed = means.mean(), f"{means.mean():.{METRICS[metric].digits}f}"
            over = " + ".join(f"{value:.10g}" for value in means)
            sum_ = f"({over}) / {len(means)} trainings = {mean:.10g}" if len(means) > 1 else f"{mean:.10g}"
            yield f"  {protocol} protocol: {sum_}, printed as {printed}"


def _explain_image(
    plan: Plan, run: RunPlan, metric: str, image: str, networks: Mapping[str, nn.Module], problems: list[str]
) -> Iterator[str]:
    settings = run.settings
    pairs = PairDataset(
        Path(settings.data), "test", settings.size, settings.kinds, settings.formats, settings.resampling
    )
    names = [pair.id for pair in pairs.pairs]
    if image not in names:
        raise UserError(f"there is no test image '{image}'; {suggest(image, names)}")
    index = names.index(image)
    pair = pairs.pairs[index]
    prediction = run.folder / "predictions" / f"{image}{settings.target_format.suffix}"
    output = read(prediction, str(prediction), settings.target_format)
    recorded = read_frame(run.folder / "metrics.csv").set_index(["id", "protocol"])
    facts = measured_facts(run.folder, run.settings, plan.suite.evaluation)
    version = int(facts.get("metrics_version", 1))
    yield f"  prediction: {prediction}, {output.shape[1]}×{output.shape[0]}"
    yield f"  target: {pairs.folder / pair.target}, {pair.width}×{pair.height}, values {settings.target_format}"
    wanted = EvaluationSettings(metrics=(metric,), protocols=plan.suite.evaluation.protocols)
    for row in metrics_of(settings, pairs, index, output, wanted, networks=networks):
        resized = {"native": "the target", "full": "the output"}[row["protocol"]]
        size = f"{row['width']}×{row['height']}"
        how = f"{resized} resized to {size}" if (pair.width, pair.height) != settings.size else f"both at {size}"
        value = row["note"] if row[metric] is None else f"{row[metric]:.10g}"
        before = recorded[metric].get((image, row["protocol"]))
        yield f"  {row['protocol']} protocol, {how}: {value} (metrics.csv: {before})"
        if before is None or not agrees(metric, before, row[metric], version):
            problems.append(
                f"{plan.label(run)}, {image}, {row['protocol']} protocol: {METRICS[metric].name} from the images is "
                f"{value}, but {before} in metrics.csv: a file was changed after the evaluation"
            )
