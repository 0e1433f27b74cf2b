"""`msgunet plan --changes`: which jobs would run again, and which changed settings are the reason."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgunet.core.errors import UserError
from msgunet.core.files import differences
from msgunet.methods.generator import changed_settings
from msgunet.suite.plan import Plan
from msgunet.suite.runs import DataPlan, RunPlan

# What a job of each rule is called, in the order in which they are listed.
_WORDS = {
    "fetch": "download",
    "prepare": "preparation",
    "train": "training",
    "gradients": "gradient training",
    "evaluate": "evaluation",
    "ablate": "ablation",
    "cost": "cost",
    "tables": "tables",
    "figures": "figures",
    "page": "page",
}
_JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", re.MULTILINE)
_FOLLOWS = "Input files updated by another job: "
# Changed values longer than this, such as a list of networks, are not shown.
_LONGEST = 60


@dataclass(frozen=True)
class Job:
    """A job of a dry run: its rule, its wildcards, and why it would run, in Snakemake's words."""

    rule: str
    wildcards: dict[str, str]
    reason: str


def changes(plan: Plan, suite: str) -> list[str]:
    """Return what would run and which setting is the reason, one line for each run and data set.

    The jobs are those of Snakemake's dry run, which updates the settings files as it always does.

    Args:
        plan: the plan of the suite.
        suite: the name or path of the suite, as Snakemake gets it.

    Raises:
        UserError: Snakemake cannot plan the suite.

    """
    # Read before the dry run updates them.
    before = {path: json.loads(path.read_text()) for path in plan.files if path.is_file()}
    jobs = dry_run(suite)
    if not jobs:
        return [f"suite {plan.name}: nothing would run; all results are up to date"]
    groups: dict[str, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: _place(plan, job)):
        groups.setdefault(_group(job), []).append(job)
    lines = [f"suite {plan.name}: {_counted(jobs)}"]
    for name, members in groups.items():
        why = "; ".join(dict.fromkeys(_reasons(plan, members, before)))
        lines.append(f"  {name}: {why}: {_counted(members)}")
    return lines


def dry_run(suite: str) -> list[Job]:
    """Return the jobs that Snakemake would run for a suite, in the working folder."""
    command = [sys.executable, "-m", "snakemake", "-n", "--nocolor", "--cores", "all", "--config", f"suite={suite}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if done.returncode:
        lines = [line for line in output.splitlines() if line.strip()]
        raise UserError("'snakemake -n' cannot plan this suite:", *(f"  {line}" for line in lines[-10:]))
    found = []
    for match in _JOB.finditer(output):
        keys = dict(line.strip().split(": ", 1) for line in match[2].splitlines() if ": " in line)
        if match[1] != "all":
            wildcards = dict(pair.split("=", 1) for pair in keys.get("wildcards", "").split(", ") if pair)
            found.append(Job(match[1], wildcards, keys.get("reason", "")))
    return found


def _place(plan: Plan, job: Job) -> tuple[int, int]:
    """Return the place of a job in the list: data first, then the runs in the order of the suite, then the report."""
    rule = list(_WORDS).index(job.rule)
    if job.rule in ("fetch", "prepare"):
        return 0, rule
    if "dataset" not in job.wildcards:
        return 2 + len(plan.runs) + len(plan.gradients), rule
    return 1 + (*plan.runs, *plan.gradients).index(_run_of(plan, job)), rule


def _group(job: Job) -> str:
    match job.wildcards:
        case {"dataset": dataset, "entry": entry, "seed": seed}:
            return f"{entry} on {dataset}, seed {seed}"
        case {"dataset": dataset, "variant": variant}:
            return f"gradients on {dataset}, {variant} intermediate outputs"
        case {"prepared": prepared}:
            return f"data/{prepared}"
        case {"where": where, "file": file}:
            return f"data/{where}/{file}"
    return "cost" if job.rule == "cost" else "report"


def _counted(jobs: list[Job]) -> str:
    """Return the number of jobs by kind: `1 training, 2 evaluations, tables`."""
    counts = Counter(job.rule for job in jobs)
    listed = []
    for rule, word in _WORDS.items():
        if counts[rule] and word in (rule, "cost"):
            listed.append(word)
        elif counts[rule]:
            listed.append(f"{counts[rule]} {word}{'s' if counts[rule] > 1 else ''}")
    return ", ".join(listed)


def _reasons(plan: Plan, jobs: list[Job], before: dict[Path, Any]) -> Iterator[str]:
    """Yield why the jobs of a group would run: changed settings where there are any, else what is missing or newer."""
    for job in jobs:
        found = list(_changed(plan, job, before))
        if found:
            yield from found
        elif "Missing output files: " in job.reason or (job is jobs[0] and not job.reason.startswith(_FOLLOWS)):
            yield _in_words(job.reason)
        elif job is jobs[0]:
            yield "its inputs change"


def _changed(plan: Plan, job: Job, before: dict[Path, Any]) -> Iterator[str]:
    if job.rule == "prepare":
        prepared = {data.folder.name: data for data in (*plan.data, *plan.larger)}[job.wildcards["prepared"]]
        yield from _changed_data(plan, prepared, before)
    elif job.rule in ("train", "gradients"):
        yield from _changed_run(plan, _run_of(plan, job))
    elif job.rule == "evaluate":
        folder = _run_of(plan, job).folder
        path = folder / "evaluation.json"
        old = json.loads(path.read_text()) if path.is_file() else {}
        new = {"precision": plan.suite.evaluation.precision, **plan.suite.evaluation.model_dump(mode="json")}
        # The default is not recorded.
        before_it = {"precision": "fp32", **old}
        yield from _shown(differences({key: before_it.get(key) for key in new}, new) if old else [], "evaluation")
    elif job.rule in ("cost", "tables"):
        name = "cost" if job.rule == "cost" else "report"
        path = plan.results / "settings" / f"{name}.json"
        if path in before:
            yield from _shown(differences(before[path], json.loads(plan.files[path])), name)


def _run_of(plan: Plan, job: Job) -> RunPlan:
    dataset = job.wildcards["dataset"]
    if job.rule == "gradients":
        folder = plan.results / "gradients" / dataset / job.wildcards["variant"]
    else:
        folder = plan.results / "runs" / dataset / job.wildcards["entry"] / f"seed{job.wildcards['seed']}"
    return next(run for run in (*plan.runs, *plan.gradients) if run.folder == folder)


def _changed_run(plan: Plan, run: RunPlan) -> Iterator[str]:
    """Yield the settings that differ from those that the generator in a run's folder was trained with."""
    for place, old, new in changed_settings(run.folder / "generator.safetensors", run.settings):
        if place != "data":
            yield from _shown([(place, old, new)])
            continue
        settings = [Path(folder) / "dataset.json" for folder in (old, new)]
        texts = [plan.files.get(path) or (path.read_text() if path.is_file() else "") for path in settings]
        if all(texts):
            yield from _shown(differences(*map(json.loads, texts)), f"datasets.{run.settings.dataset}")
        else:
            yield f"its data set {old} → {new}"


def _changed_data(plan: Plan, prepared: DataPlan, before: dict[Path, Any]) -> Iterator[str]:
    """Yield the settings that differ from those of the data set that an earlier run of this suite was trained on."""
    images = prepared.folder / "images.json"
    if images in before and before[images] != json.loads(plan.files[images]):
        yield "your own images have changed"
    for run in plan.runs:
        if run.settings.dataset == prepared.name:
            found = [text for text in _changed_run(plan, run) if text.startswith(f"datasets.{prepared.name}.")]
            if found:
                yield from found
                return


def _shown(found: list[tuple[str, Any, Any]], section: str = "") -> Iterator[str]:
    for place, old, new in found:
        name = f"{section}.{place}".strip(".")
        values = [json.dumps(value, ensure_ascii=False) for value in (old, new)]
        if old is None:
            yield f"{name} is new" + (f": {values[1]}" if len(values[1]) <= _LONGEST else "")
        elif new is None:
            yield f"{name} is left out"
        elif max(map(len, values)) <= _LONGEST:
            yield f"{name} {values[0]} → {values[1]}"
        else:
            yield f"{name} has changed"


def _in_words(reason: str) -> str:
    """Return a reason of Snakemake in a few words, with the names of at most three files."""
    kinds = {"Missing output files: ": "missing", "Updated input files: ": "newer than the result"}
    words = []
    for part in reason.split("; "):
        start = next((start for start in kinds if part.startswith(start)), None)
        if start is not None:
            names = sorted({Path(name).name for name in part.removeprefix(start).split(", ")})
            words.append(f"{kinds[start]}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}")
        elif not part.startswith(_FOLLOWS):
            words.append(part)
    return "; ".join(words)
