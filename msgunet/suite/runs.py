"""The data sets and runs of a suite: what its entries come to, and where their files are."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgunet.core.bugs import contract_bug
from msgunet.core.files import canonical_json, json_hash, short_hash
from msgunet.core.settings import DataSetSettings, RunSettings, TrainingSettings, batch_problem
from msgunet.data.manifest import larger_folder
from msgunet.data.registry import datasets
from msgunet.methods.method import Method
from msgunet.methods.registry import build_method, custom_methods, get_method, method_of
from msgunet.suite.messages import validated
from msgunet.suite.models import DataSetEntry, MethodEntry, Suite


@dataclass(frozen=True)
class DataPlan:
    """A prepared data set: its entry in the suite, and its folder, whose name contains a hash of its settings.

    `times` is a key for the times of a user's own images, or empty.
    """

    name: str
    kind: str
    entry: DataSetEntry
    folder: Path
    settings: str
    times: str = ""


@dataclass(frozen=True)
class RunPlan:
    """A run (data set, entry, seed): its settings and its folder."""

    settings: RunSettings
    folder: Path

    @property
    def trainable(self) -> bool:
        """Whether the method has anything to train."""
        return method_of(self.settings).trainable

    @property
    def relative_duration(self) -> int:
        """A relative duration of the training: kilopixels of an image times epochs; 0 without training.

        It orders the trainings, longest first, so that the last one to start is not the longest. A time-limited
        training counts 1000 per minute instead.
        """
        if not self.trainable:
            return 0
        if self.settings.training.minutes is not None:
            return round(1000 * self.settings.training.minutes)
        width, height = self.settings.size
        phases = build_method(self.settings).phases(self.settings.training)
        return width * height * sum(phase.length for phase in phases) // 1000

    @property
    def text(self) -> str:
        """The settings as canonical JSON."""
        return canonical_json(self.settings.model_dump(mode="json"))


def merged_training(recipe: dict[str, Any], suite: TrainingSettings, entry: TrainingSettings) -> TrainingSettings:
    """Merge training settings: defaults, the method's published recipe, the suite, the entry; the last one wins."""
    overrides = [{key: getattr(layer, key) for key in layer.model_fields_set} for layer in (suite, entry)]
    return TrainingSettings(**{**recipe, **overrides[0], **overrides[1]})


def _recipe(method: type[Method], options: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Return the recipe of a method.

    Raises:
        MethodBug: it is not made of settings of a training.

    """
    recipe = method.recipe(options, size)
    if not isinstance(recipe, dict):
        text = f"recipe returned a value of type {type(recipe).__name__}; expected a dictionary of training settings"
        raise contract_bug(method, [method.recipe], text)
    if problems := validated(TrainingSettings, recipe, "")[0]:
        raise contract_bug(method, [method.recipe], f"in the recipe, {'; '.join(problems)}")
    return recipe


def data_plan(name: str, entry: DataSetEntry) -> DataPlan:
    """Return the prepared data set that an entry describes."""
    kind = entry.kind or name
    cls = datasets()[kind]
    options = cls.Options.model_validate(entry.options)
    files = cls.own_files(options)
    settings = DataSetSettings(
        kind=kind,
        version=cls.version,
        size=entry.size,
        pairs=entry.pairs,
        resampling=entry.resampling,
        options=options.model_dump(mode="json"),
        listing=json_hash([(path, size) for path, size, _ in files]) if files else "",
    )
    text = canonical_json(settings.model_dump(mode="json"))
    width, height = entry.size
    folder = Path("data") / f"{kind}-{width}x{height}-{short_hash(text)}"
    return DataPlan(name, kind, entry, folder, text, json_hash(files) if files else "")


def larger_data(data: DataPlan, run: RunSettings) -> DataPlan | None:
    """Return the larger training images that a run's jitter crops, or None if the prepared ones are large enough."""
    size = tuple(side + run.training.jitter for side in run.size)
    if not run.training.jitter or all(side <= limit for side, limit in zip(size, data.entry.size, strict=True)):
        return None
    settings = DataSetSettings.model_validate_json(data.settings).model_copy(update={"train_size": size})
    text = canonical_json(settings.model_dump(mode="json"))
    return dataclasses.replace(data, folder=larger_folder(data.folder, size), settings=text)


def run_settings(
    suite_name: str, suite: Suite, data: DataPlan, name: str, entry: MethodEntry, seed: int
) -> tuple[RunSettings, str | None]:
    """Return the settings of a run, and what is wrong with it, if anything.

    Raises:
        MethodBug: the recipe of the method is invalid.

    """
    method = get_method(entry.method or name, entry.file)
    options = method.Options.model_validate(entry.options)
    size = entry.size or data.entry.size
    dataset = datasets()[data.kind]
    data_options = dataset.Options.model_validate(data.entry.options)
    source_kind, target_kind = dataset.kinds(data_options)
    source_format, target_format = dataset.formats(data_options)
    training = merged_training(_recipe(method, options, size), suite.training, entry.training)
    settings = RunSettings(
        suite=suite_name,
        dataset=data.name,
        data=str(data.folder),
        source_kind=source_kind,
        target_kind=target_kind,
        source_format=source_format,
        target_format=target_format,
        resampling=data.entry.resampling,
        entry=name,
        method=entry.method or name,
        version=method.version,
        file=entry.file,
        code=entry.file and custom_methods(entry.file).code,
        size=size,
        seed=seed,
        options=options.model_dump(mode="json"),
        training=training,
        perceptual=suite.perceptual if method.uses_perceptual(options) else None,
    )
    problem = method.problem(options, size)
    if problem is None and method.trainable:
        problem = batch_problem(training.batch_size, training.accumulate, suite.compute.processes)
        if training.minutes is not None and not training.epochs + training.decay_epochs:
            problem = "training.minutes needs epochs or decay_epochs, whose ratio divides the time; both are 0"
    return settings, problem and f"methods.{name} on {data.name}: {problem}"


def scales(settings: RunSettings) -> int:
    """Return how many resolutions of the source the generator of a run takes."""
    method = method_of(settings)
    return method.scales(method.Options.model_validate(settings.options), settings.size)
