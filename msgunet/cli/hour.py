"""The verb `hour`: a suite, speeds and the tests of the GPU one after the other, the most important first.

Each part is a command that a user can give too. It has a limit of time, keeps what it has when it is stopped, and
continues where it was when the verb is called again.
"""

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgunet.cli.arguments import AddVerb, above_zero
from msgunet.cli.verbs import command_of
from msgunet.core.errors import UserError
from msgunet.core.table import Table, number

if TYPE_CHECKING:
    from msgunet.suite.plan import Plan, RunPlan

_MSGUNET = (sys.executable, "-m", "msgunet")
# Minutes beside the trainings' own: preparing the data; evaluating, and starting a job, for each training.
_PREPARING, _EVALUATING = 1.0, 0.6
# Seconds that a stopped part has to save its state.
_GRACE = 90


@dataclass(frozen=True)
class Part:
    """A part of the hour.

    Attributes:
        title: what it answers.
        minutes: the most that it takes.
        command: its command.
        suite: the suite whose results it adds to; empty if to none.

    """

    title: str
    minutes: float
    command: tuple[str, ...]
    suite: str = ""


def add_hour(verb: AddVerb) -> None:
    """Add the verb."""
    hour = verb(
        "hour",
        run_hour,
        "Measure as much as possible within an hour on a GPU: speeds, quality, gradients, memory, tests.",
        "The parts run one after the other, the most important first, and results are shared after each "
        "(see 'msgunet share'). What is cut off is kept, and the same command continues.",
    )
    hour.add_argument("suite", nargs="?", default="gpu_hour", help="suite with the trainings (default: gpu_hour)")
    hour.add_argument(
        "--speed", default="speed", metavar="SUITE", help="suite whose networks are timed (default: speed)"
    )
    hour.add_argument("--minutes", type=above_zero, default=60.0, metavar="N", help="time for all parts (default: 60)")
    hour.add_argument("--list", action="store_true", help="only list the parts, their times and their commands")


def parts_of(plan: "Plan", suite: str, speed: str) -> list[Part]:
    """Return the parts for a suite, the most important first."""
    first = next(iter(plan.suite.datasets))
    main = [run for run in plan.runs if run.settings.dataset == first]
    others = [run for run in plan.runs if run.settings.dataset != first]

    def snakemake(title: str, minutes: float, targets: Sequence[Path] = ()) -> Part:
        command = (sys.executable, "-m", "snakemake", "--cores", "all", "--keep-going", "--config", f"suite={suite}")
        return Part(title, minutes, (*command, *(("--", *map(str, targets)) if targets else ())), suite)

    def trainings(title: str, runs: Sequence["RunPlan"], file: str) -> Iterator[Part]:
        if runs:
            yield snakemake(title, _minutes(runs), [run.folder / file for run in runs])

    def bench(part: str, minutes: float) -> Part:
        command = ("bench", speed, "--part", part, "--budget", f"{60 * minutes - 60:.0f}")
        return Part(f"speed of {part}", minutes, (*_MSGUNET, *command), speed)

    on_gpu = plan.suite.compute.gpu_required
    beside_cpu = Part("this GPU beside the CPU", 2, (*_MSGUNET, "check", speed, "--gpu"))
    tests = Part("tests of the GPU", 5, (sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"))
    return [
        *([beside_cpu] if on_gpu else []),
        bench("inference", 8),
        *trainings(f"quality on {first}", main, "metrics.csv"),
        bench("training", 8),
        *trainings("gradients", plan.gradients, "gradients.csv"),
        *trainings(", ".join(dict.fromkeys(run.settings.dataset for run in others)), others, "metrics.csv"),
        *([tests] if on_gpu else []),
        snakemake("cost, ablation, tables and page", 3),
    ]


def _minutes(runs: Sequence["RunPlan"]) -> float:
    """Return the time of some trainings and what follows them.

    Raises:
        UserError: a training is not limited in time.

    """
    trained = [run.settings for run in runs if run.trainable]
    if unlimited := [settings.entry for settings in trained if settings.training.minutes is None]:
        raise UserError(
            *(f"methods.{entry}: training.minutes is not set, so its time is unknown" for entry in unlimited)
        )
    return _PREPARING + sum(settings.training.minutes + _EVALUATING for settings in trained)


def run_hour(options: Any) -> None:
    """Run the parts, and share the results after each."""
    from msgunet.suite.plan import load_plan
    from msgunet.suite.preflight import check

    plan, speed = load_plan(options.suite), load_plan(options.speed)
    parts = parts_of(plan, options.suite, options.speed)
    print(_table(parts, options.minutes, command_of(options)).text(), flush=True)
    if options.list:
        print("\n".join(shlex.join(part.command) for part in parts))
        return
    check(plan)
    start, failed = time.monotonic(), []
    for i, part in enumerate(parts, 1):
        left = options.minutes - (time.monotonic() - start) / 60
        if left < 1:
            failed.append(f"{part.title}: not begun, {options.minutes:g} minutes are over")
            continue
        print(f"\n[{i}/{len(parts)}] {part.title}: {shlex.join(part.command)}", flush=True)
        if problem := _run(part.command, 60 * min(part.minutes, left)):
            failed.append(f"{part.title}: {problem}")
        if part.suite:
            _share(plan if part.suite == options.suite else speed, part.suite)
    if failed:
        raise UserError(*failed, "what was measured is kept; the same command continues")


def _table(parts: Sequence[Part], minutes: float, command: str) -> Table:
    rows, total = [], 0.0
    for part in parts:
        total += part.minutes
        rows.append([part.title, number(part.minutes, ".1f"), number(total, ".1f")])
    notes = [f"each part is stopped when its own time is over, and all after {minutes:g} minutes (--minutes)"]
    return Table("hour", "The parts, in minutes", ["Part", "At most", "Together"], rows, notes, command)


def _run(command: Sequence[str], seconds: float) -> str:
    """Run a command; return what is wrong with its end, or an empty string."""
    with subprocess.Popen(command) as process:
        try:
            code = process.wait(seconds)
            return f"exit status {code}" if code else ""
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            return f"stopped after {seconds / 60:.1f} minutes"
        except KeyboardInterrupt:
            # The terminal has interrupted the part, too; it saves its state.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            raise


def _share(plan: "Plan", suite: str) -> None:
    """Make the tables and figures of what there is, and copy them into the folder of shared results."""
    if (plan.results / "runs").is_dir():
        subprocess.run((*_MSGUNET, "report", suite), check=False, stdout=subprocess.DEVNULL)
    if (plan.results / "runs").is_dir() or (plan.results / "speed.csv").is_file():
        subprocess.run((*_MSGUNET, "share", suite), check=False)
