"""From a suite's YAML file to a plan: the prepared data, the runs and the settings files that the rules depend on."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from msgunet import registry
from msgunet.config import (
    DataSetEntry,
    DataSetSettings,
    MachineSettings,
    MethodEntry,
    Network,
    NetworkList,
    RunSettings,
    Suite,
    TrainingSettings,
)
from msgunet.errors import UserError
from msgunet.files import canonical_json, short_hash, write_if_changed

CONFIG = Path(__file__).resolve().parent.parent / "config"


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: `1e-4` is a number, and a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"key '{key}' stands twice{node.start_mark}")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


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

    def write(self) -> None:
        """Write the settings files; those that say the same already keep their time, so nothing runs again."""
        for path, text in self.files.items():
            write_if_changed(path, text)


def suite_path(name: str) -> Path:
    """The file of a suite: `config/NAME.yaml`, or `name` itself where it is a path that ends in .yaml."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
    else:
        if not re.fullmatch(r"[a-z0-9_]{1,64}", name):
            raise UserError(f"suite '{name}': a suite's name has only a-z, 0-9 and _; or give the path of a .yaml file")
        path = CONFIG / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in CONFIG.glob("*.yaml"))
        raise UserError(f"there is no suite file {path}: {registry.nearest(name, known)}")
    return path


def load_suite(path: Path) -> Suite:
    """Parse and validate a suite file.

    Raises:
        UserError: naming every problem with its place in the file and the nearest right name.

    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    problems, suite = _validate(Suite, raw if raw is not None else {}, "")
    problems += _entry_problems(raw) if isinstance(raw, dict) else []
    if problems or suite is None:
        raise UserError(*(f"{path}: {problem}" for problem in problems))
    return suite


def _validate(model: type[BaseModel], raw: Any, place: str) -> tuple[list[str], Any]:
    try:
        return [], model.model_validate(raw)
    except ValidationError as error:
        return [_explain(model, e, place) for e in error.errors()], None


def _explain(model: type[BaseModel], error: Any, place: str) -> str:
    loc = [str(part) for part in error["loc"] if part != "[key]"]
    where = ".".join([*([place] if place else []), *loc])
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; {registry.nearest(loc[-1], _siblings(model, loc[:-1]))}"
    return f"{where}: {error['msg']} (got {error['input']!r})"


def _siblings(model: type[BaseModel], loc: list[str]) -> list[str]:
    """The keys that a suite may have at `loc`."""
    current: Any = model
    for part in loc:
        fields = getattr(current, "model_fields", None)
        # Below a dictionary of entries, the next part is the entry's name.
        current = _model_in(fields[part].annotation) if fields and part in fields else current
    return list(current.model_fields)


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [m for m in map(_model_in, getattr(annotation, "__args__", ())) if m is not None]
    return found[-1] if found else None


def _entry_problems(raw: dict[str, Any]) -> list[str]:
    """What is wrong with names and options, entry by entry; works on the raw file so that all is said at once."""
    problems: list[str] = []

    def table(key: str, at: Any = raw) -> dict[str, Any]:
        value = at.get(key) if isinstance(at, dict) else None
        return value if isinstance(value, dict) else {}

    def names(value: Any) -> list[str]:
        """The names in a list; what is no list of names is pydantic's to report."""
        return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []

    for key, field, known in (
        ("datasets", "kind", registry.datasets()),
        ("methods", "method", registry.methods()),
    ):
        for name, raw_entry in table(key).items():
            entry = raw_entry if isinstance(raw_entry, dict) else {}
            kind = entry.get(field) or name
            if not isinstance(kind, str):
                continue
            if kind not in known:
                problems.append(f"{key}.{name}: unknown {field} '{kind}'; {registry.nearest(kind, list(known))}")
                continue
            problems += _validate(known[kind].Options, entry.get("options") or {}, f"{key}.{name}.options")[0]
            problems += _unknown(names(entry.get("datasets")), table("datasets"), f"{key}.{name}.datasets", "data set")
    gradients = table("gradients")
    wanted = [gradients.get("method") or "msgunet"] if gradients else []
    problems += _unknown(names(table("ablation").get("methods")), table("methods"), "ablation.methods", "method entry")
    problems += _unknown(names(wanted), table("methods"), "gradients.method", "method entry")
    problems += _unknown(names([gradients.get("dataset")]), table("datasets"), "gradients.dataset", "data set")
    return problems


def _unknown(wanted: list[str], known: dict[str, Any], place: str, what: str) -> list[str]:
    return [
        f"{place}: there is no {what} '{name}'; {registry.nearest(name, list(known))}"
        for name in wanted
        if name not in known
    ]


def merged_training(recipe: dict[str, Any], suite: TrainingSettings, entry: TrainingSettings) -> TrainingSettings:
    """Defaults, then the method's published recipe, then what the suite and the entry say themselves."""
    said = [layer.model_dump(include=layer.model_fields_set) for layer in (suite, entry)]
    return TrainingSettings(**{**recipe, **said[0], **said[1]})


def _data_plan(name: str, entry: DataSetEntry) -> DataPlan:
    kind = entry.kind or name
    options = registry.datasets()[kind].Options.model_validate(entry.options)
    version = registry.datasets()[kind].version
    settings = DataSetSettings(kind=kind, version=version, size=entry.size, options=options.model_dump(mode="json"))
    text = canonical_json(settings.model_dump(mode="json"))
    width, height = entry.size
    return DataPlan(name, kind, entry, Path("data") / f"{kind}-{width}x{height}-{short_hash(text)}", text)


def _run_settings(
    suite_name: str, suite: Suite, data: DataPlan, name: str, entry: MethodEntry, seed: int
) -> tuple[RunSettings, str | None]:
    method = registry.methods()[entry.method or name]
    options = method.Options.model_validate(entry.options)
    size = entry.size or data.entry.size
    dataset = registry.datasets()[data.kind]
    source_kind, target_kind = dataset.kinds(dataset.Options.model_validate(data.entry.options))
    settings = RunSettings(
        suite=suite_name,
        dataset=data.name,
        data=str(data.folder),
        source_kind=source_kind,
        target_kind=target_kind,
        entry=name,
        method=entry.method or name,
        version=method.version,
        size=size,
        seed=seed,
        options=options.model_dump(mode="json"),
        training=merged_training(method.recipe, suite.training, entry.training),
        perceptual=suite.perceptual if method.uses_perceptual(options) else None,
    )
    problem = method.problem(options, size)
    return settings, problem and f"methods.{name} on {data.name}: {problem}"


def _scales(settings: RunSettings) -> int:
    method = registry.methods()[settings.method]
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
                problems += [problem] if problem and problem not in problems else []
                if key in suite.ablation.methods and _scales(settings) < 2:
                    problems.append(f"ablation.methods: '{key}' has one scale only on {plan.name}, it needs several")
    if problems:
        raise UserError(*(f"{path}: {problem}" for problem in problems))
    gradients = _gradient_runs(suite, results, runs)
    networks = NetworkList(**suite.cost.model_dump(), networks=_networks(runs))
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
    training = base.training.model_copy(update={"epochs": wanted.epochs, "decay_epochs": 0})
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
    titles = {key: entry.title or registry.methods()[entry.method or key].title for key, entry in suite.methods.items()}
    sections: dict[str, Any] = {
        "evaluation": suite.evaluation.model_dump(mode="json"),
        "cost": plan.networks.model_dump(mode="json"),
        "compute": plan.machine.model_dump(mode="json"),
        "report": {
            **suite.report.model_dump(mode="json"),
            "suite": plan.name,
            "command": f"snakemake --cores all --config suite={given_name}",
            "description": suite.description,
            "titles": titles,
            "measures": list(suite.evaluation.measures),
            "protocols": list(suite.evaluation.protocols),
            "datasets": {
                key: {"kind": entry.kind or key, "size": list(entry.size)} for key, entry in suite.datasets.items()
            },
            "runs": [str(run.folder) for run in plan.runs],
            "ablation": list(suite.ablation.methods),
            "gradients": [str(run.folder) for run in plan.gradients],
        },
    }
    return {plan.results / "settings" / f"{key}.json": canonical_json(value) for key, value in sections.items()}


def _networks(runs: list[RunPlan]) -> list[Network]:
    """What the cost table counts.

    Every trained entry's generator at every size of the suite that it can be built for (`used`: the suite trains it
    there); discriminators and VGG-19 at the sizes that they are trained with.
    """
    sizes = sorted({run.settings.size for run in runs}, key=lambda size: size[0] * size[1])
    used = {(run.settings.entry, run.settings.size) for run in runs}
    generators, discriminators, perceptual = [], [], {}
    for settings in {run.settings.entry: run.settings for run in runs}.values():
        method = registry.methods()[settings.method]
        if not method.trainable:
            continue
        options = method.Options.model_validate(settings.options)
        for size in sizes:
            if method.problem(options, size) is not None:
                continue
            found = Network(
                entry=settings.entry,
                part="generator",
                method=settings.method,
                version=settings.version,
                size=size,
                options=settings.options,
                used=(settings.entry, size) in used,
            )
            generators.append(found)
            if found.used:
                discriminators.append(found.model_copy(update={"part": "discriminator"}))
            if found.used and settings.perceptual is not None:
                width = {"width": settings.perceptual.width}
                perceptual[size] = Network(entry="vgg19", part="perceptual", size=size, options=width, used=True)
    return [*generators, *discriminators, *perceptual.values()]


def only_suite(config: dict[str, Any]) -> str:
    """The suite that Snakemake's `--config` names; any other key is an error, not a silent run of the paper."""
    unknown = sorted(set(config) - {"suite"})
    if unknown:
        raise UserError(*(f"--config {key}: unknown key; did you mean 'suite'?" for key in unknown))
    return str(config.get("suite", "paper"))
