"""The state of a run: which stages are done or failed, why, and how far its training is."""

import contextlib
import json
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from msgunet.core.bugs import bug_in
from msgunet.core.disk import describe, disk_error
from msgunet.core.errors import InterruptedTraining, UserError, is_out_of_memory
from msgunet.core.files import KernelLock, canonical_json, is_locked, remove_leftovers, write_json
from msgunet.core.settings import EvaluationSettings, RunSettings
from msgunet.core.text import printable

LOCK = ".lock"
PROGRESS = "progress.json"

Status = Literal["not yet", "running", "stopped", "failed", "out of memory", "trained", "done"]


# Characters of a reason, so that a record fits into the smallest block of a disk.
_LONGEST = 600
# Recorded in advance, because a killed process cannot record anything.
_KILLED = "ended without reporting an error; it may have been killed, perhaps for using too much memory"


@contextlib.contextmanager
def attempt(folder: Path, stage: str, settings: RunSettings) -> Iterator[None]:
    """Record in a run's folder why a stage (`train`, `evaluate`, `ablate`) failed; a new attempt clears the record.

    A stage that a signal stopped has not failed, and leaves no record. A stage that was killed leaves one that says so.
    A training already holds the run's lock. Each other stage holds a lock of its own, so that `state_of` can see that
    it is running.
    """
    path = _failure_path(folder, stage)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    with contextlib.ExitStack() as stack:
        if stage != "train":
            # Two processes can evaluate the same run: the lock only indicates that the stage is running.
            with contextlib.suppress(Timeout, UserError):
                stack.enter_context(KernelLock(_stage_lock(folder, stage)).acquire(timeout=0))
        _record(path, "stopped", _KILLED, settings)
        try:
            yield
        except (InterruptedTraining, KeyboardInterrupt):
            if _read(path, settings).get("word") == "stopped":
                # With several processes, another one may have removed the file already.
                path.unlink(missing_ok=True)
            raise
        except Exception as error:
            text = printable(" ".join(_reason(error).split()))
            # When one of several processes fails, the others fail because of it: keep the first error.
            if _read(path, settings).get("word", "stopped") == "stopped":
                _record(path, "out of memory" if is_out_of_memory(error) else "failed", text, settings)
            raise
        path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """Return an error in words; for one that is nobody's message to a user, with its type and place."""
    if isinstance(error, UserError):
        return str(error)
    if disk_error(error) is error:
        return describe(error)
    if (bug := bug_in(error)) is not None:
        return str(bug)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}" if str(error) else f"{type(error).__name__}{place}"


def refuse_again(folder: Path, stage: str, settings: RunSettings) -> None:
    """Refuse a further try of a stage whose last one ended with an error, which would only come again.

    A stage that was killed or ran out of memory can be tried again.

    Raises:
        UserError: it ended with an error.

    """
    failure = _read(_failure_path(folder, stage), settings)
    if failure.get("word") == "failed":
        raise UserError(f"not tried again, because the error would come again: {failure['why']}")


def _record(path: Path, word: Status, why: str, settings: RunSettings) -> None:
    record = {"word": word, "why": why[:_LONGEST], "settings": settings.identity}
    # A full disk must not hide the stage's own error.
    with contextlib.suppress(OSError):
        try:
            write_json(path, record)
        except OSError:
            # There is no space for a new file, but the record that was made in advance has its place on the disk.
            with path.open("r+b") as file:
                file.write(canonical_json(record).encode())
                file.truncate()


@dataclass(frozen=True)
class State:
    """The state of a run.

    Attributes:
        status: the state.
        why: what went wrong, or which stage is running.
        step: the training's current step, if known.
        total: the training's number of steps, if known.
        seconds: the training's time so far, if known.
        left: seconds that a running training still needs, if known.

    """

    status: Status
    why: str = ""
    step: int | None = None
    total: int | None = None
    seconds: float | None = None
    left: float | None = None

    @property
    def cell(self) -> str:
        """The text that a table prints in place of a missing number."""
        return self.status if self.status in ("failed", "out of memory") else "not yet"

    @property
    def words(self) -> str:
        """The status in words."""
        return "trained, not evaluated" if self.status == "trained" else self.status

    @property
    def sentence(self) -> str:
        """The state with the training's progress and the reason, where there are any."""
        at = "" if self.step is None else f" at step {self.step} of {self.total}"
        return f"{self.words}{at if self.status in ('running', 'stopped') else ''}{self.why and f': {self.why}'}"


def state_of(folder: Path, settings: RunSettings, evaluation: EvaluationSettings) -> State:
    """Return the state of the run in `folder`.

    A run is done when it is trained and evaluated as `evaluation` requires; a run that records gradients, when it is
    trained. Files written under other settings are ignored.
    """
    facts = trained_facts(folder, settings)
    if facts:
        known = {"step": facts["steps"], "total": facts["steps"], "seconds": facts["seconds"]}
        if settings.gradient_records:
            return State("done", **known)
        for stage in ("evaluate", "ablate"):
            if is_locked(_stage_lock(folder, stage)):
                return State("running", f"{stage} in progress", **known)
            if failure := _read(_failure_path(folder, stage), settings):
                return State(failure["word"], f"{stage}: {failure['why']}", **known)
        return State("done" if measured_facts(folder, settings, evaluation) else "trained", **known)
    progress = _read(folder / PROGRESS, settings)
    known = {key: progress[key] for key in ("step", "total", "seconds") if key in progress}
    if is_locked(folder / LOCK):
        left = None
        if progress.get("rate"):
            left = (progress["total"] - progress["step"]) / progress["rate"]
        return State("running", left=left, **known)
    if failure := _read(_failure_path(folder, "train"), settings):
        return State(failure["word"], failure["why"], **known)
    return State("stopped", **known) if progress else State("not yet")


def trained_facts(folder: Path, settings: RunSettings) -> dict[str, Any]:
    """Return the record of a training with these settings; empty if it or the training's result is missing."""
    result = "gradients.csv" if settings.gradient_records else "generator.safetensors"
    return _read(folder / "training.json", settings) if (folder / result).is_file() else {}


def measured_facts(folder: Path, settings: RunSettings, evaluation: EvaluationSettings) -> dict[str, Any]:
    """Return the record of this very training's evaluation; empty if it is not as `evaluation` requires."""
    facts = _facts_of_training(folder, "evaluation.json", settings)
    complete = (folder / "metrics.csv").is_file() and all(
        set(required) <= set(facts.get(kind, ()))
        for kind, required in (("metrics", evaluation.metrics), ("protocols", evaluation.protocols))
    )
    return facts if complete and facts.get("precision", "fp32") == evaluation.precision else {}


def ablated_facts(folder: Path, settings: RunSettings) -> dict[str, Any]:
    """Return the record of this very training's ablation; empty if there is none."""
    return _facts_of_training(folder, "ablation.json", settings) if (folder / "ablation.csv").is_file() else {}


def _facts_of_training(folder: Path, name: str, settings: RunSettings) -> dict[str, Any]:
    trained, facts = trained_facts(folder, settings), _read(folder / name, settings)
    return facts if trained and facts.get("trained") == trained["finished"] else {}


def duration(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds: 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _stage_lock(folder: Path, stage: str) -> Path:
    return folder / f".lock-{stage}"


def _failure_path(folder: Path, stage: str) -> Path:
    return folder / f"failed-{stage}.json"


def _read(path: Path, settings: RunSettings) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it") from error
    return record if record.get("settings") == settings.identity else {}
