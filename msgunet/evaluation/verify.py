"""`msgunet verify`: check that the results of a suite are those of its files."""

import csv
import json
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from msgunet.core.attempts import measured_facts, state_of
from msgunet.core.errors import UserError
from msgunet.core.files import sha256_file
from msgunet.core.metrics import METRICS, VERSION
from msgunet.core.pipeline import in_order
from msgunet.core.settings import ComputeSettings, EvaluationSettings, RunSettings
from msgunet.core.text import LISTED, limited, printable
from msgunet.data.images import read
from msgunet.data.pairs import PairDataset
from msgunet.evaluation.evaluate import checksums, images_at_once, memory_of, metrics_of
from msgunet.evaluation.images import changed_images
from msgunet.evaluation.metrics import CPU
from msgunet.evaluation.metrics.networks import load_networks
from msgunet.evaluation.trained import load_run
from msgunet.suite.plan import Plan
from msgunet.suite.runs import RunPlan

# How far any metric that is computed again may be from the recorded one, by the version of the metrics.
_TOLERANCE = {1: 2e-3, VERSION: 0.0}
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
        caused: for each image whose target was changed, its rows that do not agree, as texts.

    """

    rows: int = 0
    agreeing: int = 0
    outputs: int = 0
    equal: int = 0
    problems: list[str] = field(default_factory=list)
    caused: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class _Checked:
    """What was found of one image; see `Verification`. `lines` are its problems."""

    rows: int = 0
    agreeing: int = 0
    lines: list[str] = field(default_factory=list)
    caused: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, wrong: list[str], evaluation: EvaluationSettings, changed: Container[str]) -> "_Checked":
        """Return what rows that do not agree (`wrong`) mean for an image, whose target may be among the `changed`."""
        count = len(evaluation.protocols)
        if name in changed:
            return cls(count, count - len(wrong), caused=wrong)
        return cls(count, count - len(wrong), [f"{name}, {text}" for text in wrong])


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
    problems: list[str] = []
    networks = load_networks(plan.suite.evaluation.metrics, plan.machine, CPU)
    images_of = {str(data.folder): changed_images(data.folder) for data in plan.data}
    caused: dict[tuple[str, str], dict[str, list[str]]] = {}
    for run in evaluated:
        name = f"{plan.label(run)} on {run.settings.dataset}"
        changed = {image for image in images_of[run.settings.data].values() if image is not None}
        found = verify(run.settings, run.folder, plan.suite.evaluation, plan.machine, images, name, changed, networks)
        for image, rows in found.caused.items():
            caused.setdefault((run.settings.data, image), {})[name] = rows
        outputs = f"; {found.equal} of {found.outputs} outputs are equal to the bit" if found.outputs else ""
        print(f"{name}: {found.agreeing} of {found.rows} rows agree{outputs}", flush=True)
        problems += [f"{name}: {problem}" for problem in found.problems]
    if missing:
        text = "\n".join([f"{len(plan.runs) - len(evaluated)} of {len(plan.runs)} runs are not evaluated:", *missing])
        print(printable(text))
    causes = [
        line
        for folder, found in images_of.items()
        for line in limited([_cause(text, caused.get((folder, image), {})) for text, image in found.items()], "images")
    ]
    if causes or problems:
        raise UserError(*causes, *problems)


def _cause(problem: str, runs: Mapping[str, Sequence[str]]) -> str:
    """Return what is wrong with an image, and by run the rows that do not agree because of it."""
    if not runs:
        return problem
    listed = ", ".join(f"{name} {len(rows)}" for name, rows in list(runs.items())[:LISTED])
    more, example = len(runs) - LISTED, next(iter(runs.values()))[0]
    listed += f" and {more} more run{'s' * (more > 1)}" if more > 0 else ""
    text = f"because of it, {sum(map(len, runs.values()))} rows do not agree: {listed}"
    return f"{problem}; {text}; for example, {example}"


def _why_not_evaluated(plan: Plan, run: RunPlan) -> str:
    sentence = state_of(run.folder, run.settings, plan.suite.evaluation).sentence
    return f"{plan.label(run)} on {run.settings.dataset}: {sentence}"


def verify(
    run: RunSettings,
    folder: Path,
    evaluation: EvaluationSettings,
    compute: ComputeSettings,
    images: int,
    name: str,
    changed: Container[str] = (),
    networks: Mapping[str, nn.Module] | None = None,
) -> Verification:
    """Check an evaluated run against its files.

    - The checksums of generator, manifest, metrics and predictions are those that the evaluation recorded.
    - All metrics are computed again from predictions and targets. (`check_prepared` checks the targets themselves.)
    - The first `images` test images are translated again, if the method has the code that it was trained with.

    Args:
        run: settings of the run.
        folder: its folder.
        evaluation: what was evaluated.
        compute: the device for the generator.
        images: number of test images to translate again.
        name: what the progress bar calls the run.
        changed: the images whose targets were changed: rows that do not agree because of it are no problems of the run.
        networks: those of `load_networks` on the CPU, for metrics that need one.

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
    version = int(facts.get("metrics_version", 1))

    def check(index: int, target: np.ndarray) -> _Checked:
        return _check_image(run, folder, pairs, index, target, recorded, evaluation, version, changed, networks)

    # Each of several images is measured by so many threads.
    torch.set_num_threads(compute.threads)
    jobs, lines = images_at_once(CPU, compute.threads), []
    memory = memory_of(pairs, evaluation.metrics)
    checked = in_order(range(len(pairs)), pairs.target, lambda _, read: read, check, jobs, *memory)
    with closing(checked), tqdm(total=len(pairs), desc=f"verify {name}", unit="image", disable=None) as bar:
        for index, result in checked:
            try:
                one = result.result()
            except UserError as error:
                rows = [f"{protocol} protocol: {error}" for protocol in evaluation.protocols]
                one = _Checked.of(pairs.pairs[index].id, rows, evaluation, changed)
            found.rows += one.rows
            found.agreeing += one.agreeing
            lines += one.lines
            found.caused.update({pairs.pairs[index].id: one.caused} if one.caused else {})
            bar.update()
    found.problems += limited(lines, "images and rows that do not agree")
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
    version: int,
    changed: Container[str],
    networks: Mapping[str, nn.Module] | None,
) -> _Checked:
    """Compute the rows of an image again, and compare them with those of the evaluation."""
    pair = pairs.pairs[index]
    path = _prediction(run, folder, pair.id)
    if not path.is_file():
        return _Checked(lines=[f"{pair.id}: there is no {path}"])
    first = next((row for key, row in recorded.items() if key[0] == pair.id), {})
    replaced = first.get("prediction_sha256") and sha256_file(path) != first["prediction_sha256"]
    rows = []
    try:
        output = read(path, str(path), run.target_format)
        again = list(metrics_of(run, pairs, index, output, evaluation, target, networks=networks))
    except (UserError, ValueError) as error:  # damaged, or of another size
        again, rows = [], [f"{protocol} protocol: {error}" for protocol in evaluation.protocols]
    for row in again:
        old = recorded.get((pair.id, row["protocol"]))
        differing = ["no row"] if old is None else _differing(row, old, evaluation, version)
        rows += [f"{row['protocol']} protocol: {', '.join(differing)}"] if differing else []
    checked = _Checked.of(pair.id, rows, evaluation, changed)
    if replaced:
        example = f"; {len(rows)} of its rows do not agree, for example, {rows[0]}" if rows else ""
        text = f"{pair.id}: the prediction {path} was changed after the evaluation{example}"
        checked.lines, checked.caused = [text], []
    return checked


def agrees(metric: str, before: str | float | None, now: float | None, version: int) -> bool:
    """Return whether a recorded value is the one that was computed again; None and NaN are undefined ones.

    `version` is that of the metrics when the value was recorded.
    """
    before = None if before is None or math.isnan(float(before)) else float(before)
    if before is None or now is None:
        return before is None and now is None
    return math.isclose(before, now, rel_tol=0, abs_tol=max(METRICS[metric].tolerance, _TOLERANCE[version]))


def _differing(row: dict[str, Any], old: dict[str, str], evaluation: EvaluationSettings, version: int) -> list[str]:
    texts = []
    for metric in evaluation.metrics:
        before, now = old.get(metric) or None, row[metric]
        if not agrees(metric, before, now, version):
            texts.append(f"{METRICS[metric].name} is {before} in metrics.csv, but {now} from the images")
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
