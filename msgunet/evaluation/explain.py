"""`msgunet explain`: where a number of Table 1 comes from, and the same number again."""

from collections.abc import Iterator
from pathlib import Path

from msgunet.core.attempts import measured_facts
from msgunet.core.errors import UserError
from msgunet.core.frames import read_frame
from msgunet.core.metrics import METRICS
from msgunet.core.registry import suggest
from msgunet.core.settings import EvaluationSettings
from msgunet.data.images import read
from msgunet.data.pairs import PairDataset
from msgunet.evaluation.evaluate import metrics_of
from msgunet.suite.plan import Plan
from msgunet.suite.runs import RunPlan

# Images that a mean lists, from the lowest value.
_LISTED = 3


def explain(plan: Plan, entry: str, metric: str, image: str | None) -> Iterator[str]:
    """Yield lines on a metric of an entry: the files, the formula and the value again, for each run and protocol.

    Args:
        plan: the plan of the suite.
        entry: name of the entry in the suite.
        metric: name of the metric.
        image: id of a test image; None explains the mean over all of them.

    Raises:
        UserError: there is no such entry, metric or image, or no evaluated run of the entry.

    """
    entries = dict.fromkeys(run.settings.entry for run in plan.runs)
    if entry not in entries:
        raise UserError(f"suite '{plan.name}' has no entry '{entry}'; {suggest(entry, entries)}")
    if metric not in plan.suite.evaluation.metrics:
        raise UserError(
            f"there is no metric '{metric}' in this suite; {suggest(metric, plan.suite.evaluation.metrics)}"
        )
    runs = [run for run in plan.runs if run.settings.entry == entry]
    runs = [run for run in runs if measured_facts(run.folder, run.settings, plan.suite.evaluation)]
    if not runs:
        raise UserError(f"'{entry}' is not evaluated yet")
    yield f"{METRICS[metric].heading}: {METRICS[metric].formula}"
    for run in runs:
        yield ""
        yield f"{plan.label(run)} on {run.settings.dataset}"
        yield from _explain_mean(run, metric) if image is None else _explain_image(plan, run, metric, image)


def _explain_mean(run: RunPlan, metric: str) -> Iterator[str]:
    path = run.folder / "metrics.csv"
    frame = read_frame(path)
    yield f"  file: {path}, column {metric}"
    for protocol, rows in frame.groupby("protocol", sort=False):
        values = rows.set_index("id")[metric].dropna()
        yield f"  {protocol} protocol: sum {values.sum():.10g} / {len(values)} images = {values.mean():.10g}"
        lowest = ", ".join(f"{name} {value:.6g}" for name, value in values.nsmallest(_LISTED).items())
        yield f"    lowest: {lowest}; highest: {values.idxmax()} {values.max():.6g}"


def _explain_image(plan: Plan, run: RunPlan, metric: str, image: str) -> Iterator[str]:
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
    yield f"  prediction: {prediction}, {output.shape[1]}×{output.shape[0]}"
    yield f"  target: {pairs.folder / pair.target}, {pair.width}×{pair.height}, values {settings.target_format}"
    wanted = EvaluationSettings(metrics=(metric,), protocols=plan.suite.evaluation.protocols)
    for row in metrics_of(settings, pairs, index, output, wanted):
        resized = {"native": "the target", "full": "the output"}[row["protocol"]]
        size = f"{row['width']}×{row['height']}"
        how = f"{resized} resized to {size}" if (pair.width, pair.height) != settings.size else f"both at {size}"
        value = row["note"] if row[metric] is None else f"{row[metric]:.10g}"
        before = recorded.loc[(image, row["protocol"]), metric]
        yield f"  {row['protocol']} protocol, {how}: {value} (metrics.csv: {before})"
