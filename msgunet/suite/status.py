"""Where a suite is: what is done, running, failed or still to come."""

from msgunet.core.attempts import State, ablated_facts, duration, state_of
from msgunet.core.table import Cell, Table
from msgunet.data.manifest import steps_per_epoch
from msgunet.methods.registry import build_method
from msgunet.suite import jobs
from msgunet.suite.plan import Plan, RunPlan

States = list[tuple[RunPlan, State]]


def status_table(plan: Plan, command: str) -> Table:
    """One row for each run, and what else is still to be made. Reads files only; does nothing."""
    states = _states(plan)
    rows, left, unknown = [], 0.0, 0
    for run, state in states:
        name = plan.label(run)
        total = state.total or _steps(plan, run)
        seconds = _seconds_left(run, state, total, states)
        if seconds is None:
            unknown += 1
        left += seconds or 0
        rows.append(
            [
                name,
                run.settings.dataset,
                state.word if state.word != "trained" else "trained, not evaluated",
                _counts(run, state, total),
                Cell("–") if state.seconds is None else Cell(duration(state.seconds), state.seconds),
                Cell("?") if seconds is None else Cell(duration(seconds) if seconds else "–", seconds),
            ]
        )
    words = [state.word for _, state in states]
    count = {word: words.count(word) for word in dict.fromkeys(words)}
    notes = [f"{len(states)} runs: {', '.join(f'{number} {word}' for word, number in count.items())}"]
    notes += [f"{plan.label(run)} on {run.settings.dataset}: {s.sentence}" for run, s in states if s.why]
    if left:
        notes.append(f"trainings: about {duration(left)} to come, one after the other, at the speeds so far")
    if unknown:
        notes.append(f"{unknown} trainings to come whose speed is not known yet: 'msgunet plan' estimates them")
    notes += _to_come(plan, states)
    columns = ["Run", "Data set", "State", "Steps", "Time", "Left"]
    return Table("status", f"Where the suite '{plan.name}' is", columns, rows, notes, command)


def report_is_due(plan: Plan) -> bool:
    """Whether a suite that has ended before its time has something to show, and nobody has stopped it."""
    states = [state for _, state in _states(plan)]
    stopped = any(state.word == "running" or (state.word == "stopped" and not state.why) for state in states)
    return not stopped and any(state.word == "done" for state in states)


def _states(plan: Plan) -> States:
    return [(run, state_of(run.folder, run.settings, plan.suite.evaluation)) for run in (*plan.runs, *plan.gradients)]


def _counts(run: RunPlan, state: State, total: int | None) -> str:
    if not run.trainable or (total is None and state.step is None):
        return "–"
    return f"{state.step or 0:,}/{total:,}"


def _steps(plan: Plan, run: RunPlan) -> int | None:
    """In all; None for a training by the clock."""
    training = run.settings.training
    if training.minutes is not None:
        return None
    epochs = sum(phase.length for phase in build_method(run.settings).phases(training)) if run.trainable else 0
    return epochs * steps_per_epoch(jobs.pairs(plan, run)[0], training.batch_size)


def _seconds_left(run: RunPlan, state: State, total: int | None, states: States) -> float | None:
    """Of a training, by its own speed or that of its entry with another seed or data set; None: not known."""
    if state.word in ("done", "trained") or not run.trainable:
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


def _to_come(plan: Plan, states: States) -> list[str]:
    """What else the suite ends with and is not there, or older than what it is made from."""
    absent = [f"data set {data.name}" for data in plan.data if not (data.folder / "manifest.csv").is_file()]
    for run, state in states:
        name = f"{plan.label(run)} on {run.settings.dataset}"
        if state.word == "trained":
            absent.append(f"evaluation of {name}")
        if run.settings.entry in plan.suite.ablation.methods and run in plan.runs and state.word in ("trained", "done"):
            absent += [] if ablated_facts(run.folder, run.settings) else [f"ablation of {name}"]
    cost = plan.results / "cost.csv"
    absent += [] if cost.is_file() else ["cost"]
    made_from = [plan.results / "settings" / "report.json", cost, *(run.folder / "metrics.csv" for run in plan.runs)]
    newest = max((path.stat().st_mtime for path in made_from if path.is_file()), default=0)
    files = {"tables": "tables/table1.csv", "figures": "figures/figures.json", "page": "report/index.html"}
    for name, file in files.items():
        path = plan.results / file
        if not path.is_file() or path.stat().st_mtime < newest:
            absent.append(name)
    return [f"beside trainings still to come: {', '.join(absent)}"] if absent else []
