"""The status of a suite: which runs are done, running, failed or pending, and what else is missing."""

import shutil

from msgunet.core.attempts import State, ablated_facts, duration, measured_facts, state_of, trained_facts
from msgunet.core.table import Cell, Table
from msgunet.data.manifest import steps_per_epoch
from msgunet.methods.registry import build_method
from msgunet.suite import jobs
from msgunet.suite.plan import Plan
from msgunet.suite.runs import RunPlan

# Bytes: less is not enough for the smallest files.
_FULL = 1 << 20
States = list[tuple[RunPlan, State]]


def status_table(plan: Plan, command: str) -> Table:
    """Return the status of a suite: one row for each run, and the other outputs still to be made. Only reads files."""
    states = _states(plan)
    rows, remaining, unknown = [], 0.0, 0
    for run, state in states:
        name = plan.label(run)
        total = state.total or _steps(plan, run)
        seconds = _seconds_left(run, state, total, states)
        if seconds is None:
            unknown += 1
        remaining += seconds or 0
        rows.append(
            [
                name,
                run.settings.dataset,
                state.words,
                _counts(run, state, total),
                Cell("–") if state.seconds is None else Cell(duration(state.seconds), state.seconds),
                Cell("?") if seconds is None else Cell(duration(seconds) if seconds else "–", seconds),
            ]
        )
    words = [state.status for _, state in states]
    count = {word: words.count(word) for word in dict.fromkeys(words)}
    notes = [f"{len(states)} runs: {', '.join(f'{number} {word}' for word, number in count.items())}"]
    notes += [f"{plan.label(run)} on {run.settings.dataset}: {s.sentence}" for run, s in states if s.why]
    if remaining:
        notes.append(f"trainings: about {duration(remaining)} left, one after another, at the speeds so far")
    if unknown:
        notes.append(f"{unknown} trainings left whose speed is not known yet: 'msgunet plan' forecasts them")
    notes += _disk(plan) + _pending(plan, states)
    columns = ["Run", "Data set", "State", "Steps", "Time", "Left"]
    return Table("status", f"Status of the suite '{plan.name}'", columns, rows, notes, command)


def report_is_due(plan: Plan) -> bool:
    """Return whether a suite that ended early has results to report and was not stopped on purpose."""
    states = [state for _, state in _states(plan)]
    stopped = any(state.status == "running" or (state.status == "stopped" and not state.why) for state in states)
    return not stopped and any(state.status == "done" for state in states)


def _states(plan: Plan) -> States:
    return [(run, state_of(run.folder, run.settings, plan.suite.evaluation)) for run in (*plan.runs, *plan.gradients)]


def _counts(run: RunPlan, state: State, total: int | None) -> str:
    if not run.trainable or (total is None and state.step is None):
        return "–"
    return f"{state.step or 0:,}/{total:,}"


def _steps(plan: Plan, run: RunPlan) -> int | None:
    """Return the steps of a whole training; None for a time-limited one."""
    training = run.settings.training
    if training.minutes is not None:
        return None
    epochs = sum(phase.length for phase in build_method(run.settings).phases(training)) if run.trainable else 0
    return epochs * steps_per_epoch(jobs.pairs(plan, run)[0], training.batch_size)


def _seconds_left(run: RunPlan, state: State, total: int | None, states: States) -> float | None:
    """Return the seconds left of a training; None if unknown.

    Uses its own speed, else that of the same entry with another seed or data set.
    """
    if state.status in ("done", "trained") or not run.trainable:
        return 0.0
    if run.settings.training.minutes is not None:
        return max(0.0, 60 * run.settings.training.minutes - (state.seconds or 0))
    if state.left is not None:
        return state.left
    same = (run.settings.entry, run.settings.size, run.settings.training.batch_size)
    for other, known in [(run, state), *states]:
        settings = other.settings
        if (settings.entry, settings.size, settings.training.batch_size) == same and known.step and known.seconds:
            return (total - (state.step or 0)) * known.seconds / known.step
    return None


def _disk(plan: Plan) -> list[str]:
    """Return a note if the disk is full now: a run whose disk was full all the time could not record it."""
    free = shutil.disk_usage(plan.results if plan.results.exists() else ".").free
    return [f"the disk of {plan.results} is full ({free:,} bytes are free): free disk space"] if free < _FULL else []


def _pending(plan: Plan, states: States) -> list[str]:
    """Return a note on the outputs, other than trainings, that are missing or older than their inputs."""
    pending = [f"data set {data.name}" for data in plan.data if not (data.folder / "manifest.csv").is_file()]
    for run, state in states:
        if run not in plan.runs or state.status == "running" or not trained_facts(run.folder, run.settings):
            continue
        name = f"{plan.label(run)} on {run.settings.dataset}"
        if not measured_facts(run.folder, run.settings, plan.suite.evaluation):
            pending.append(f"evaluation of {name}")
        if run.settings.entry in plan.suite.ablation.methods and not ablated_facts(run.folder, run.settings):
            pending.append(f"ablation of {name}")
    cost = plan.results / "cost.csv"
    pending += [] if cost.is_file() else ["cost"]
    inputs = [plan.results / "settings" / "report.json", cost]
    inputs += [run.folder / name for run in plan.runs for name in ("metrics.csv", "ablation.csv")]
    inputs += [run.folder / "gradients.csv" for run in plan.gradients]
    newest = max((path.stat().st_mtime for path in inputs if path.is_file()), default=0)
    files = {"tables": "tables/table1.csv", "figures": "figures/figures.json", "page": "report/index.html"}
    for name, file in files.items():
        path = plan.results / file
        if not path.is_file() or path.stat().st_mtime < newest:
            pending.append(name)
    return [f"still to be made, apart from trainings: {', '.join(pending)}"] if pending else []
