"""What became of the stages of a run: done, failed and why, or how far."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from msgunet.core.errors import InterruptedTraining, UserError, is_out_of_memory
from msgunet.core.files import KernelLock, write_json
from msgunet.core.settings import EvaluationSettings, RunSettings

LOCK = ".lock"
PROGRESS = "progress.json"

Word = Literal["not yet", "running", "stopped", "failed", "out of memory", "trained", "done"]


# What is left behind by a process that could not say anything.
_SILENT = "ended without a word; it may have been killed, for its memory perhaps"


@contextlib.contextmanager
def attempt(folder: Path, stage: str, settings: RunSettings) -> Iterator[None]:
    """Note in a run's folder why a stage (`train`, `evaluate`, `ablate`) failed; a new attempt takes the note away.

    A stage that was stopped by a signal has not failed; one that was killed leaves a note that says so. Who trains
    holds the run's lock; the other stages hold one of their own, so that it is seen that they are at work.
    """
    path = _failure(folder, stage)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if stage != "train":
            # Two may evaluate the same; the lock only tells.
            with contextlib.suppress(Timeout, UserError):
                stack.enter_context(KernelLock(_stage_lock(folder, stage)).acquire(timeout=0))
        _note(path, "stopped", _SILENT, settings)
        try:
            yield
        except (InterruptedTraining, KeyboardInterrupt):
            if _read(path, settings).get("word") == "stopped":
                # Of several processes another may have taken it away by now.
                path.unlink(missing_ok=True)
            raise
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            # Of several processes the others fail too, of what the first has died of.
            if _read(path, settings).get("word", "stopped") == "stopped":
                _note(path, "out of memory" if is_out_of_memory(error) else "failed", text, settings)
            raise
        path.unlink(missing_ok=True)


def _note(path: Path, word: Word, why: str, settings: RunSettings) -> None:
    # The stage's own error is what matters, also where the disk is full.
    with contextlib.suppress(OSError):
        write_json(path, {"word": word, "why": why, "settings": settings.identity})


@dataclass(frozen=True)
class State:
    """Where a run is.

    `why`: what went wrong. `step`, `total`, `seconds`: of the training, where known. `left`: seconds of a running one.
    """

    word: Word
    why: str = ""
    step: int | None = None
    total: int | None = None
    seconds: float | None = None
    left: float | None = None

    @property
    def cell(self) -> str:
        """What a table says in place of a number."""
        return self.word if self.word in ("failed", "out of memory") else "not yet"

    @property
    def sentence(self) -> str:
        """What there is to say beyond the word."""
        at = "" if self.step is None else f" at step {self.step} of {self.total}"
        return f"{self.word}{at if self.word in ('running', 'stopped') else ''}{self.why and f': {self.why}'}"


def state_of(folder: Path, settings: RunSettings, evaluation: EvaluationSettings) -> State:
    """Where a run is whose files are in `folder`; after its training it is measured as `evaluation` says.

    A run that records gradients is done when it is trained. Files of other settings than these count for nothing.
    """
    facts = trained_facts(folder, settings)
    if facts:
        known = {"step": facts["steps"], "total": facts["steps"], "seconds": facts["seconds"]}
        if settings.gradient_records:
            return State("done", **known)
        for stage in ("evaluate", "ablate"):
            if _held(_stage_lock(folder, stage)):
                return State("running", f"{stage} is at work", **known)
            if failure := _read(_failure(folder, stage), settings):
                return State(failure["word"], f"{stage}: {failure['why']}", **known)
        return State("done" if measured_facts(folder, settings, evaluation) else "trained", **known)
    progress = _read(folder / PROGRESS, settings)
    known = {key: progress[key] for key in ("step", "total", "seconds") if key in progress}
    if _held(folder / LOCK):
        left = None
        if progress.get("rate"):
            left = (progress["total"] - progress["step"]) / progress["rate"]
        return State("running", left=left, **known)
    if failure := _read(_failure(folder, "train"), settings):
        return State(failure["word"], failure["why"], **known)
    return State("stopped", **known) if progress else State("not yet")


def trained_facts(folder: Path, settings: RunSettings) -> dict[str, Any]:
    """What the training of these settings wrote about itself; empty where what it was for is not there."""
    result = "gradients.csv" if settings.gradient_records else "generator.safetensors"
    return _read(folder / "training.json", settings) if (folder / result).is_file() else {}


def measured_facts(folder: Path, settings: RunSettings, evaluation: EvaluationSettings) -> dict[str, Any]:
    """What the evaluation of that very training wrote about itself; empty where it has not measured all of this."""
    facts = _of_the_training(folder, "evaluation.json", settings)
    there = (folder / "metrics.csv").is_file() and all(
        set(wanted) <= set(facts.get(kind, ()))
        for kind, wanted in (("metrics", evaluation.metrics), ("protocols", evaluation.protocols))
    )
    return facts if there else {}


def ablated_facts(folder: Path, settings: RunSettings) -> dict[str, Any]:
    """What the ablation of that very training wrote about itself; empty where there is none."""
    return _of_the_training(folder, "ablation.json", settings) if (folder / "ablation.csv").is_file() else {}


def _of_the_training(folder: Path, name: str, settings: RunSettings) -> dict[str, Any]:
    trained, facts = trained_facts(folder, settings), _read(folder / name, settings)
    return facts if trained and facts.get("trained") == trained["finished"] else {}


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _stage_lock(folder: Path, stage: str) -> Path:
    return folder / f".lock-{stage}"


def _failure(folder: Path, stage: str) -> Path:
    return folder / f"failed-{stage}.json"


def _read(path: Path, settings: RunSettings) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it") from error
    return found if found.get("settings") == settings.identity else {}


def _held(path: Path) -> bool:
    """Whether a stage of a run is at work; a training that starts at this moment waits for us."""
    if not path.exists():
        return False
    lock = KernelLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (UserError, OSError):
        # Somebody else's folder, which may be looked at only.
        return False
    lock.release()
    return False
