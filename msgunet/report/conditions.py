"""The conditions of data and trainings in words."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgunet.core.settings import RunSettings
from msgunet.data.registry import datasets
from msgunet.methods.method import Method, perceptual_label, schedule_label
from msgunet.methods.registry import build_method

if TYPE_CHECKING:
    from msgunet.report.collect import Run


def shared_conditions(rows: Sequence[Sequence["Run"]]) -> str:
    """Describe the trainings behind several rows: first what all have in common, then what differs.

    Args:
        rows: the runs of each row, one per seed. Their settings differ only in the seed; durations and memory are those
            of the first.

    """
    titles = [runs[0].title for runs in rows]
    parts = [training_conditions(runs[0].settings, runs[0].facts()) for runs in rows]
    common = common_conditions(rows) if len(rows) > 1 else []
    own = [[part for part in of_row if part not in common] for of_row in parts]
    sentences = [f"All methods: {', '.join(common)}"] if common else []
    sentences += [f"{title}: {', '.join(rest)}" for title, rest in zip(titles, own, strict=True) if rest]
    return "; ".join(sentences)


def common_conditions(rows: Sequence[Sequence["Run"]]) -> list[str]:
    """Return what the trainings behind several rows have in common, in parts of a sentence."""
    first, *others = (training_conditions(runs[0].settings, runs[0].facts()) for runs in rows)
    return [part for part in first if all(part in other for other in others)]


def data_parts(settings: RunSettings) -> list[str]:
    """Describe how the prepared images of a run were given their size, in parts of a sentence."""
    filters = {"lanczos": "Lanczos", "bicubic": "bicubic"}
    parts = [f"photographs resized by {filters[settings.resampling]}"] if "photo" in settings.kinds else []
    roles = [role for role, kind in zip(("sources", "targets"), settings.kinds, strict=True) if kind == "labels"]
    if roles:
        parts.append(f"{' and '.join(roles)} are labels, resized by nearest neighbour")
    return [*parts, *filter(None, [_shaped(Path(settings.data) / "dataset.json")])]


def _shaped(file: Path) -> str:
    """Return how images were given their aspect ratio; empty if they were only resized or the file is gone."""
    if not file.is_file():
        return ""
    recorded = json.loads(file.read_text(encoding="utf-8"))
    dataset = datasets()[recorded["kind"]]
    return dataset.shaped(dataset.Options.model_validate(recorded["options"]))


def training_conditions(settings: RunSettings, facts: Mapping[str, Any], method: Method | None = None) -> list[str]:
    """Describe a training in parts of a sentence.

    Args:
        settings: settings of the run.
        facts: those that the training recorded; empty if it is not done.
        method: the run's method, if it is loaded already: the file that `settings` names may be elsewhere now.

    """
    method = method or build_method(settings)
    if not method.trainable:
        return ["nothing to train"]
    training = settings.training
    parts = [
        schedule_label(method.phases(training), training.minutes),
        f"batch {training.batch_size}",
        f"learning rate {training.learning_rate:g}",
    ]
    if training.decay_epochs:
        parts.append(f"decaying from the {training.decay_from} decay epoch")
    adam = (training.beta1, training.beta2)
    if adam != (0.5, 0.999):
        parts.append("Adam betas {:g} and {:g}".format(*adam))
    defaults = method.Options().model_dump(mode="json")
    parts += [f"{key} {_label(value)}" for key, value in settings.options.items() if value != defaults.get(key)]
    if training.precision != "fp32":
        parts.append(training.precision)
    if training.flip:
        parts.append("random horizontal flips")
    if training.jitter:
        parts.append(f"random jitter ({training.jitter} pixels)")
    if training.ema:
        parts.append(f"moving average of the generator's weights (decay {training.ema:g})")
    if settings.perceptual is not None:
        parts.append(f"perceptual loss on {perceptual_label(settings.perceptual)}")
    if facts:
        seconds = facts["seconds"]
        took = f"{seconds / 60:.1f} min" if seconds >= 6 else f"{seconds:.1f} s"
        parts.append(f"{facts['steps']} steps in {took}")
        if "peak_memory_mib" in facts:
            memory = "GPU memory" if facts["device_type"] == "cuda" else "memory"
            process = " in the first process" if facts["processes"] > 1 else ""
            parts.append(f"peak {memory} {facts['peak_memory_mib'] / 1024:.1f} GiB{process}")
    return [part for part in (*parts, method.conditions()) if part]


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
