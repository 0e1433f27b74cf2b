"""From a suite's YAML file to a plan: the prepared data, the runs and the settings files that the rules depend on."""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from msgunet.core.errors import UserError
from msgunet.core.files import canonical_json, short_hash, write_if_changed
from msgunet.core.settings import (
    DataSetSettings,
    MachineSettings,
    NetworkList,
    RunSettings,
    TrainingSettings,
    batch_problem,
)
from msgunet.data.base import DataSet
from msgunet.data.registry import build_dataset, datasets
from msgunet.methods.registry import build_method, custom_methods, get_method, method_of
from msgunet.suite.file import load_suite, suite_path
from msgunet.suite.models import DataSetEntry, MethodEntry, Suite
from msgunet.suite.networks import networks_of


@dataclass(frozen=True)
class DataPlan:
    """One prepared data set: its entry in the suite, and its folder, whose name changes with its settings."""

    name: str
    kind: str
    entry: DataSetEntry
    folder: Path
    settings: str


@dataclass(frozen=True)
class RunPlan:
    """One (data set, method, seed): its settings and its folder."""

    settings: RunSettings
    folder: Path

    @property
    def trainable(self) -> bool:
        """Whether there is anything to train."""
        return method_of(self.settings).trainable

    @property
    def work(self) -> int:
        """A measure of how long the training takes: kilopixels of an image, times epochs; 0 where nothing is trained.

        Longest first: a training that starts last must not be the one that all others wait for. A training for a
        number of minutes counts these.
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
        """The canonical JSON of the settings."""
        return canonical_json(self.settings.model_dump(mode="json"))


@dataclass(frozen=True)
class Plan:
    """Everything that the rules and the commands need to know about a suite."""

    name: str
    suite: Suite
    results: Path
    data: tuple[DataPlan, ...]
    runs: tuple[RunPlan, ...]
    gradients: tuple[RunPlan, ...]
    networks: NetworkList
    files: dict[Path, str]

    @property
    def machine(self) -> MachineSettings:
        """What is said about this machine."""
        return MachineSettings(**{**self.suite.compute.model_dump(), **self.suite.data.model_dump()})

    @property
    def titles(self) -> dict[str, str]:
        """How tables and figures call each entry."""
        return {
            key: entry.title or get_method(entry.method or key, entry.file).title
            for key, entry in self.suite.methods.items()
        }

    def label(self, run: RunPlan) -> str:
        """How lists of runs call one: its title, and what tells it from others with the same."""
        title = self.titles[run.settings.entry]
        if run.settings.gradient_records:
            return f"{title} (gradients, {run.folder.name} intermediate outputs)"
        return f"{title} (seed {run.settings.seed})" if len(self.suite.seeds) > 1 else title

    @property
    def report(self) -> dict[str, Any]:
        """What the report's settings file says."""
        return json.loads(self.files[self.results / "settings" / "report.json"])

    def dataset(self, data: DataPlan) -> tuple[DataSet, bool]:
        """A data set, on the folder with its published files, and whether what is missing there is downloaded."""
        folder, downloads = self.machine.archives(data.kind)
        return build_dataset(DataSetSettings.model_validate_json(data.settings), folder), downloads

    def inputs(self, prepared: str) -> tuple[list[Path], list[Path]]:
        """What the prepared folder of this name is made from: archives, to be downloaded or there, and own images."""
        dataset, downloads = self.dataset(next(data for data in self.data if data.folder.name == prepared))
        remotes = dataset.remotes(dataset.options)
        if not remotes:
            return [], dataset.inputs()
        absent = [dataset.archives / remote.name for remote in remotes if downloads and remote.urls]
        return list(dict.fromkeys([*dataset.inputs(), *absent])), []

    def changed(self) -> list[Path]:
        """Settings files that are not there or say something else than the suite does now."""

        def said(text: str) -> dict[str, Any]:
            # By which path the suite is called does not matter.
            return {key: value for key, value in json.loads(text).items() if key != "command"}

        return [path for path, text in self.files.items() if not path.is_file() or said(path.read_text()) != said(text)]

    def write(self) -> None:
        """Write the settings files; those that say the same already keep their time, so nothing runs again."""
        for path, text in self.files.items():
            write_if_changed(path, text)


def merged_training(recipe: dict[str, Any], suite: TrainingSettings, entry: TrainingSettings) -> TrainingSettings:
    """Defaults, then the method's published recipe, then what the suite and the entry say themselves."""
    said = [{key: getattr(layer, key) for key in layer.model_fields_set} for layer in (suite, entry)]
    return TrainingSettings(**{**recipe, **said[0], **said[1]})


def _data_plan(name: str, entry: DataSetEntry) -> DataPlan:
    kind = entry.kind or name
    cls = datasets()[kind]
    options = cls.Options.model_validate(entry.options)
    settings = DataSetSettings(
        kind=kind,
        version=cls.version,
        size=entry.size,
        pairs=entry.pairs,
        options=options.model_dump(mode="json"),
        listing=cls.listing(options),
    )
    text = canonical_json(settings.model_dump(mode="json"))
    width, height = entry.size
    return DataPlan(name, kind, entry, Path("data") / f"{kind}-{width}x{height}-{short_hash(text)}", text)


def _run_settings(
    suite_name: str, suite: Suite, data: DataPlan, name: str, entry: MethodEntry, seed: int
) -> tuple[RunSettings, str | None]:
    method = get_method(entry.method or name, entry.file)
    options = method.Options.model_validate(entry.options)
    size = entry.size or data.entry.size
    dataset = datasets()[data.kind]
    given = dataset.Options.model_validate(data.entry.options)
    source_kind, target_kind = dataset.kinds(given)
    source_format, target_format = dataset.formats(given)
    try:
        training = merged_training(method.recipe(options, size), suite.training, entry.training)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(f"methods.{name}: the recipe of method '{method.name}' is wrong: {wrong}") from error
    settings = RunSettings(
        suite=suite_name,
        dataset=data.name,
        data=str(data.folder),
        source_kind=source_kind,
        target_kind=target_kind,
        source_format=source_format,
        target_format=target_format,
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
            problem = "training.minutes is divided as epochs and decay_epochs say, which are both 0"
    return settings, problem and f"methods.{name} on {data.name}: {problem}"


def _scales(settings: RunSettings) -> int:
    method = method_of(settings)
    return method.scales(method.Options.model_validate(settings.options), settings.size)


@functools.cache
def load_plan(name: str = "paper") -> Plan:
    """The plan of a suite, by name or path.

    Raises:
        UserError: with everything that is wrong with the file, or with sizes that the networks cannot take.

    """
    path = suite_path(name)
    suite = load_suite(path)
    suite_name = path.stem
    if not re.fullmatch(r"[a-z0-9_]{1,64}", suite_name):
        raise UserError(f"{path}: the file's name becomes the suite's and may hold only a-z, 0-9 and _")
    results = Path("results") / suite_name
    data = tuple(_data_plan(key, entry) for key, entry in suite.datasets.items())
    runs: list[RunPlan] = []
    problems: list[str] = []
    for seed in suite.seeds:
        for plan in data:
            for key, entry in suite.methods.items():
                if entry.datasets is not None and plan.name not in entry.datasets:
                    continue
                settings, problem = _run_settings(suite_name, suite, plan, key, entry, seed)
                runs.append(RunPlan(settings, results / "runs" / plan.name / key / f"seed{seed}"))
                problems += [problem] if problem else []
                if key in suite.ablation.methods and _scales(settings) < 2:
                    problems.append(f"ablation.methods: '{key}' has one scale only on {plan.name}, it needs several")
    used = {run.settings.dataset for run in runs}
    problems += [f"datasets.{plan.name}: no method is trained on it" for plan in data if plan.name not in used]
    try:
        gradients = _gradient_runs(suite, results, runs)
    except UserError as error:
        problems += error.problems
    if problems:
        # Every seed has the same problems.
        raise UserError(*(f"{path}: {problem}" for problem in dict.fromkeys(problems)))
    networks = NetworkList(**suite.cost.model_dump(), networks=networks_of([run.settings for run in runs]))
    plan = Plan(suite_name, suite, results, data, tuple(runs), gradients, networks, {})
    plan.files.update({data.folder / "dataset.json": data.settings for data in plan.data})
    plan.files.update({run.folder / "run.json": run.text for run in (*runs, *gradients)})
    plan.files.update(_settings_files(plan, name))
    return plan


def _gradient_runs(suite: Suite, results: Path, runs: list[RunPlan]) -> tuple[RunPlan, ...]:
    """The method with and without intermediate outputs, for the number of epochs that Fig. 2 wants."""
    wanted = suite.gradients
    if wanted is None:
        return ()
    at = (wanted.method, wanted.dataset)
    base = next((run.settings for run in runs if (run.settings.entry, run.settings.dataset) == at), None)
    if base is None:
        raise UserError(f"gradients: the entry '{wanted.method}' is not trained on '{wanted.dataset}' in this suite")
    if "intermediate_outputs" not in base.options:
        raise UserError(f"gradients.method: '{wanted.method}' has no intermediate outputs to train with and without")
    training = base.training.model_copy(update={"epochs": wanted.epochs, "decay_epochs": 0, "minutes": None})
    plans = []
    for variant in ("with", "without"):
        options = {**base.options, "intermediate_outputs": variant == "with"}
        update = {"training": training, "options": options, "gradient_records": wanted.records}
        settings = base.model_copy(update=update)
        plans.append(RunPlan(settings, results / "gradients" / wanted.dataset / variant))
    return tuple(plans)


def _settings_files(plan: Plan, given_name: str) -> dict[Path, str]:
    """One small file per stage that holds just what that stage depends on (see docs/design.md)."""
    suite = plan.suite
    sections: dict[str, Any] = {
        "evaluation": suite.evaluation.model_dump(mode="json"),
        "cost": plan.networks.model_dump(mode="json"),
        "compute": plan.machine.model_dump(mode="json"),
        "report": {
            **suite.report.model_dump(mode="json"),
            "suite": plan.name,
            "command": f"snakemake --cores all --config suite={given_name}",
            "description": suite.description,
            "titles": plan.titles,
            "metrics": list(suite.evaluation.metrics),
            "protocols": list(suite.evaluation.protocols),
            "datasets": {
                key: {"kind": entry.kind or key, "size": list(entry.size)} for key, entry in suite.datasets.items()
            },
            "runs": [str(run.folder) for run in plan.runs],
            "ablation": list(suite.ablation.methods),
            "gradients": [str(run.folder) for run in plan.gradients],
            "trained": {
                key: list(
                    dict.fromkeys(r.settings.entry for r in plan.runs if r.trainable and r.settings.dataset == key)
                )
                for key in suite.datasets
            },
        },
    }
    return {plan.results / "settings" / f"{key}.json": canonical_json(value) for key, value in sections.items()}
