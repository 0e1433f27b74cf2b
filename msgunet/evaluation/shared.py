"""`msgunet verify FOLDER`: shared results against one's own run of the same suite, or against the shared generators."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from torch import nn
from tqdm import tqdm

from msgunet.core.attempts import measured_facts, trained_facts
from msgunet.core.errors import UserError
from msgunet.core.files import differences, sha256_file, write_csv
from msgunet.core.frames import read_frame
from msgunet.core.text import printable
from msgunet.data.pairs import PairDataset
from msgunet.evaluation.compared import KEYS, Compared, compare, lines_of, name_of, training_noise
from msgunet.evaluation.evaluate import metrics_of
from msgunet.evaluation.images import other_images, own_images
from msgunet.evaluation.metrics import CPU
from msgunet.evaluation.metrics.networks import load_networks
from msgunet.evaluation.trained import load_run
from msgunet.methods.generator import changed_settings
from msgunet.suite.plan import Plan, load_plan
from msgunet.suite.record import RECORD, SharedResults, SharedRun, read_shared
from msgunet.suite.runs import RunPlan

# Changed values longer than this are not shown.
_LONGEST = 60


def verify_shared(folder: Path, images: int, out: Path | None) -> None:
    """Compare one's own run of a shared suite with the shared results, and print a line for each run.

    A run whose metrics are all the same numbers is equal. It is within tolerance if its generator is the shared one and
    its metrics differ by at most `Metric.across_devices`. Another training of the same settings has another generator,
    unless device, threads and versions are the same. Where several trainings of an entry are shared, one's own are
    within tolerance if their mean lies where 95 % of the means of as many new trainings do (Student's t).

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
    problems += own_images(plan)
    # Runs by the reason that they cannot be compared, which is often the same.
    failed: dict[str, list[str]] = {}
    prepare = f"snakemake --cores all --config suite={folder / plan.name}.yaml --until prepare"
    networks = load_networks(plan.suite.evaluation.metrics, plan.machine, CPU) if images else {}
    for run in record.runs:
        own = next((own for own in plan.runs if _key(own) == run.key), None)
        name = name_of(run.key)
        if own is None and any(other.settings.entry == run.key[1] and not other.trainable for other in plan.runs):
            # Earlier versions repeated reference rows for every seed.
            continue
        if own is None:
            failed.setdefault(f"{folder / plan.name}.yaml has no such run", []).append(name)
            continue
        if reasons := _not_comparable(folder, run, own, prepare):
            for reason in reasons:
                failed.setdefault(reason, []).append(name)
            continue
        rows = shared[(shared[KEYS[:3]] == list(run.key)).all(axis=1)]
        try:
            if images:
                found = _by_generator(folder, run, own, plan, rows, images, prepare, networks)
            else:
                found = _by_own_run(run, own, plan, rows)
        except UserError as error:
            for problem in error.problems:
                failed.setdefault(problem, []).append(name)
            continue
        if found is None:
            print(f"{printable(name)}: not evaluated here yet")
        else:
            compared[run.key] = found
    problems += [f"{_names(runs)}: {reason}" for reason, runs in failed.items()]
    if not (compared or problems):
        raise UserError(
            f"there is nothing to compare yet; run 'snakemake --cores all --config suite={folder / plan.name}.yaml' "
            "first, or, if generators are shared, let them translate: --images N"
        )
    noise = training_noise(shared, {key: found for key, found in compared.items() if not found.same_generator})
    for key, found in compared.items():
        explained = None if found.same_generator else noise.get(key[:2])
        print(printable("\n".join(lines_of(key, found, explained))), flush=True)
        if found.verdict == "different" and not (explained and explained[0]):
            problems.append(f"{name_of(key)}: different")
    if out is not None and compared:
        write_csv(out, pd.concat([found.rows for found in compared.values()]).to_dict("records"))
    if problems:
        raise UserError(*problems)


def _plan(folder: Path, record: SharedResults, problems: list[str]) -> Plan:
    suite = folder / f"{record.suite}.yaml"
    try:
        return load_plan(str(suite))
    except UserError as error:
        intact = [] if problems else [f"the {len(record.files)} files in {folder} are as they were shared"]
        raise UserError(*problems, *error.problems, *intact, trace=error.trace) from error


def _names(runs: Sequence[str]) -> str:
    """Return the names of runs for one line: all of two, or the first and the number of the others."""
    return " and ".join(runs) if len(runs) <= 2 else f"{runs[0]} and {len(runs) - 1} more runs"


def _not_comparable(folder: Path, run: SharedRun, own: RunPlan, prepare: str) -> list[str]:
    """Return why a shared run cannot be compared with one's own, if it cannot."""
    reasons = []
    if other := _other_settings(run, own):
        reasons.append(f"other settings ({other}), so the results cannot be compared")
    if other := other_images(folder, run, own, prepare):
        reasons.append(other)
    if not reasons and "metrics_sha256" not in run.evaluation:
        reasons.append("the shared results were evaluated before checksums were recorded")
    return reasons


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
    """Return where the settings of two runs differ, apart from their images, or an empty string."""
    texts = []
    for place, there, here in differences(run.settings, own.settings.model_dump(mode="json")):
        if place == "data":
            continue
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
        raise UserError("it was evaluated here on other images: the checksums of the manifests differ")
    manifest = Path(own.settings.data) / "manifest.csv"
    if manifest.is_file() and sha256_file(manifest) != facts["manifest_sha256"]:
        raise UserError(f"{manifest} was changed after the evaluation")
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
    return compare(shared, rows, same, "; ".join([why, *conditions]))


def _conditions(there: dict, here: dict) -> Iterator[str]:
    """Yield what differs between the conditions of two results: device, threads, versions, commit."""
    keys = ("device", "threads", "versions", "commit")
    for place, before, now in differences({k: there.get(k) for k in keys}, {k: here.get(k) for k in keys}):
        yield f"{place.removeprefix('versions.')} {before} → {now}"


def _by_generator(
    folder: Path,
    run: SharedRun,
    own: RunPlan,
    plan: Plan,
    shared: pd.DataFrame,
    images: int,
    prepare: str,
    networks: Mapping[str, nn.Module],
) -> Compared:
    """Let a shared generator translate the first test images here, and compare the metrics with the shared rows."""
    generator = folder / run.weights
    if not generator.is_file():
        raise UserError(
            f"its generator is not in {folder / 'weights'}; 'msgunet share --weights' shares generators, too"
        )
    if sha256_file(generator) != run.evaluation["generator_sha256"]:
        raise UserError(f"{generator} is not the generator that was evaluated")
    data = Path(own.settings.data)
    if not (data / "manifest.csv").is_file():
        raise UserError(f"its images are not prepared here yet; '{prepare}' does it")
    settings = own.settings
    model = load_run(settings, folder / RECORD, generator, plan.machine, plan.suite.evaluation.precision)
    pairs = PairDataset(data, "test", settings.size, settings.kinds, settings.formats, settings.resampling)
    rows = []
    for index in tqdm(range(min(images, len(pairs))), f"verify {name_of(run.key)}", unit="image", disable=None):
        output = model.translated(pairs.images(index)[0], pairs.pairs[index].id)
        rows += metrics_of(settings, pairs, index, output, plan.suite.evaluation, networks=networks)
    here = pd.DataFrame(rows)
    return compare(shared[shared["id"].isin(here["id"])], here, True, "the shared generator")
