"""`msgunet verify`: check that the results of a suite are those of its files."""

import csv
import json
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from msgunet.core.attempts import measured_facts, state_of
from msgunet.core.errors import UserError
from msgunet.core.files import sha256_file
from msgunet.core.metrics import VERSION
from msgunet.core.pipeline import in_order
from msgunet.core.settings import ComputeSettings, EvaluationSettings, RunSettings
from msgunet.core.text import printable
from msgunet.data.images import read
from msgunet.data.pairs import PairDataset
from msgunet.data.prepare import check_prepared
from msgunet.evaluation.evaluate import checksums, images_at_once, metrics_of
from msgunet.evaluation.metrics import CPU
from msgunet.evaluation.trained import load_run
from msgunet.suite.plan import Plan
from msgunet.suite.runs import RunPlan

# How far a metric that is computed again may be from the recorded one, by the version of the metrics.
TOLERANCE = {1: 2e-3, VERSION: 1e-9}
_CHANGED = {
    "generator_sha256": "generator.safetensors is not the one that was evaluated",
    "manifest_sha256": "the data set's manifest is not the one of the evaluation",
    "metrics_sha256": "metrics.csv was changed after the evaluation",
}


@dataclass
class Verification:
    """What was checked of a run, and what does not agree.

    Attributes:
        rows: rows of metrics that were computed again from the images.
        agreeing: those that agree.
        outputs: test images that were translated again.
        equal: those whose pixels are all equal.
        problems: what does not agree, one line each.

    """

    rows: int = 0
    agreeing: int = 0
    outputs: int = 0
    equal: int = 0
    problems: list[str] = field(default_factory=list)


def verify_suite(plan: Plan, images: int) -> None:
    """Check the test images of a suite and each evaluated run, and print a line for each run.

    The generators translate the first `images` test images again. Of each other run, the line says why it is not
    evaluated.

    Raises:
        UserError: nothing is evaluated yet, or something does not agree; all of it is listed.

    """
    evaluated = [run for run in plan.runs if measured_facts(run.folder, run.settings, plan.suite.evaluation)]
    missing = [_why_not_evaluated(plan, run) for run in plan.runs if run not in evaluated]
    if missing:
        missing.append(f"the suite continues with '{plan.report['command']}'; 'msgunet status' tells how far it is")
    if not evaluated:
        raise UserError(f"suite '{plan.name}' has no evaluated run yet", *missing)
    problems = []
    for data in plan.data:
        if (data.folder / "manifest.csv").is_file():
            problems += check_prepared(data.folder, "test")
    for run in evaluated:
        name = f"{plan.label(run)} on {run.settings.dataset}"
        found = verify(run.settings, run.folder, plan.suite.evaluation, plan.machine, images, name)
        outputs = f"; {found.equal} of {found.outputs} outputs are equal to the bit" if found.outputs else ""
        print(f"{name}: {found.agreeing} of {found.rows} rows agree{outputs}", flush=True)
        problems += [f"{name}: {problem}" for problem in found.problems]
    if missing:
        text = "\n".join([f"{len(plan.runs) - len(evaluated)} of {len(plan.runs)} runs are not evaluated:", *missing])
        print(printable(text))
    if problems:
        raise UserError(*problems)


def _why_not_evaluated(plan: Plan, run: RunPlan) -> str:
    state = state_of(run.folder, run.settings, plan.suite.evaluation)
    return f"{plan.label(run)} on {run.settings.dataset}: {state.sentence}"


def verify(
    run: RunSettings,
    folder: Path,
    evaluation: EvaluationSettings,
    compute: ComputeSettings,
    images: int,
    name: str,
) -> Verification:
    """Check an evaluated run against its files.

    - The checksums of generator, manifest, metrics and predictions are those that the evaluation recorded.
    - All metrics are computed again from predictions and targets. (`check_prepared` checks the targets themselves.)
    - The first `images` test images are translated again by the generator, whose method must have the code that it was
      trained with.

    Args:
        run: settings of the run.
        folder: its folder.
        evaluation: what was evaluated.
        compute: the device for the generator.
        images: number of test images to translate again.
        name: what the progress bar calls the run.

    """
    found = Verification()
    facts = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    data = Path(run.data)
    now = checksums(folder / "generator.safetensors", data / "manifest.csv", folder / "metrics.csv")
    if "metrics_sha256" in facts:
        found.problems += [text for key, text in _CHANGED.items() if facts[key] != now[key]]
    else:
        found.problems.append("evaluated before checksums were recorded; evaluate again to have them")
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        recorded = {(row["id"], row["protocol"]): row for row in csv.DictReader(file)}
    pairs = PairDataset(data, "test", run.size, run.kinds, run.formats, run.resampling)
    tolerance = TOLERANCE[int(facts.get("metrics_version", 1))]

    def check(index: int, images: tuple[np.ndarray, np.ndarray]) -> tuple[int, int, list[str]]:
        return _check_image(run, folder, pairs, index, images[1], recorded, evaluation, tolerance)

    at_once = images_at_once(CPU, compute.threads)
    checked = in_order(range(len(pairs)), pairs.images, lambda _, images: images, check, at_once)
    with closing(checked), tqdm(total=len(pairs), desc=f"verify {name}", unit="image", disable=None) as bar:
        for _, result in checked:
            rows, agreeing, problems = result.result()
            found.rows += rows
            found.agreeing += agreeing
            found.problems += problems
            bar.update()
    expected = len(pairs) * len(evaluation.protocols)
    if len(recorded) != expected:
        found.problems.append(f"metrics.csv has {len(recorded)} rows, not {expected}")
    if images:
        found.problems += _check_outputs(run, folder, pairs, min(images, len(pairs)), evaluation, compute, found)
    return found


def _check_image(
    run: RunSettings,
    folder: Path,
    pairs: PairDataset,
    index: int,
    target: np.ndarray,
    recorded: dict[tuple[str, str], dict[str, str]],
    evaluation: EvaluationSettings,
    tolerance: float,
) -> tuple[int, int, list[str]]:
    """Return how many rows of an image were computed again, how many of them agree, and what does not agree."""
    pair = pairs.pairs[index]
    path = _prediction(run, folder, pair.id)
    if not path.is_file():
        return 0, 0, [f"{pair.id}: there is no {path}"]
    problems = []
    first = next((row for key, row in recorded.items() if key[0] == pair.id), {})
    if first.get("prediction_sha256") and sha256_file(path) != first["prediction_sha256"]:
        problems.append(f"{pair.id}: the prediction {path} was changed after the evaluation")
    output = read(path, str(path), run.target_format)
    rows = agreeing = 0
    for row in metrics_of(run, pairs, index, output, evaluation, target):
        rows += 1
        old = recorded.get((pair.id, row["protocol"]))
        differing = ["no row"] if old is None else _differing(row, old, evaluation, tolerance)
        agreeing += not differing
        problems += [f"{pair.id}, {row['protocol']} protocol: {text}" for text in differing]
    return rows, agreeing, problems


def _differing(row: dict[str, Any], old: dict[str, str], evaluation: EvaluationSettings, tolerance: float) -> list[str]:
    texts = []
    for metric in evaluation.metrics:
        before, now = old.get(metric) or None, row[metric]
        if before is None or now is None:
            agrees = before is None and now is None
        else:
            agrees = math.isclose(float(before), now, rel_tol=0, abs_tol=tolerance)
        if not agrees:
            texts.append(f"{metric.upper()} is {before} in metrics.csv, but {now} from the images")
    return texts


def _check_outputs(
    run: RunSettings,
    folder: Path,
    pairs: PairDataset,
    count: int,
    evaluation: EvaluationSettings,
    compute: ComputeSettings,
    found: Verification,
) -> Iterator[str]:
    try:
        model = load_run(run, folder / "run.json", folder / "generator.safetensors", compute, evaluation.precision)
    except UserError as error:
        yield from error.problems
        return
    for index in range(count):
        name = pairs.pairs[index].id
        path = _prediction(run, folder, name)
        if not path.is_file():
            continue
        again = model.translated(pairs.images(index)[0], name).astype(int)
        difference = np.abs(again - read(path, str(path), run.target_format).astype(int))
        found.outputs += 1
        found.equal += not difference.any()
        # Another device or number of threads rounds differently.
        if difference.max() > 1:
            yield f"{name}: the generator's output differs from the prediction by up to {difference.max()} levels"


def _prediction(run: RunSettings, folder: Path, name: str) -> Path:
    return folder / "predictions" / f"{name}{run.target_format.suffix}"
