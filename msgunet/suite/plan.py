"""The plan of a suite: its prepared data sets, its runs, and the settings files that the rules depend on."""

import functools
import json
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgunet.core.bugs import bugs_named
from msgunet.core.errors import UserError, collected
from msgunet.core.files import canonical_json, write_if_changed
from msgunet.core.settings import (
    DataSetSettings,
    MachineSettings,
    NetworkList,
)
from msgunet.data.base import DataSet
from msgunet.data.registry import build_dataset
from msgunet.methods.registry import get_method, method_of
from msgunet.suite.file import load_suite, suite_path
from msgunet.suite.grid import grids, point_label
from msgunet.suite.models import MethodEntry, Suite
from msgunet.suite.networks import networks_of
from msgunet.suite.runs import DataPlan, RunPlan, data_plan, larger_data, run_settings, scales


@dataclass(frozen=True)
class Plan:
    """Everything that the rules and commands use of a suite.

    `larger` are the larger training images that jitter needs. `files` maps the path of each settings file to its text.
    """

    name: str
    suite: Suite
    results: Path
    data: tuple[DataPlan, ...]
    larger: tuple[DataPlan, ...]
    runs: tuple[RunPlan, ...]
    gradients: tuple[RunPlan, ...]
    networks: NetworkList
    files: dict[Path, str]

    @property
    def machine(self) -> MachineSettings:
        """The suite's settings for this machine."""
        return MachineSettings(**{**self.suite.compute.model_dump(), **self.suite.data.model_dump()})

    @property
    def titles(self) -> dict[str, str]:
        """The title of each entry in tables and figures; entries with equal titles also have their name in it."""
        titles = {key: _title(key, entry) + point_label(entry.grid) for key, entry in self.suite.methods.items()}
        repeated = {title for title, count in Counter(titles.values()).items() if count > 1}
        return {key: f"{title} ({key})" if title in repeated else title for key, title in titles.items()}

    @property
    def method_files(self) -> list[str]:
        """The files of the suite's custom methods."""
        return sorted({entry.file for entry in self.suite.methods.values() if entry.file is not None})

    def label(self, run: RunPlan) -> str:
        """Return the name of a run in lists: its title, plus its seed or gradient variant where titles repeat."""
        title = self.titles[run.settings.entry]
        if run.settings.gradient_records:
            return f"{title} (gradients, {run.folder.name} intermediate outputs)"
        return f"{title} (seed {run.settings.seed})" if len(self.suite.seeds) > 1 and run.trainable else title

    @property
    def report(self) -> dict[str, Any]:
        """The content of the report's settings file."""
        return json.loads(self.files[self.results / "settings" / "report.json"])

    def dataset(self, data: DataPlan) -> tuple[DataSet, bool]:
        """Return a data set that reads its published files, and whether missing files are downloaded."""
        folder, downloads = self.machine.archives(data.kind)
        return build_dataset(DataSetSettings.model_validate_json(data.settings), folder), downloads

    def inputs(self, prepared: str) -> tuple[list[Path], list[Path]]:
        """Return the files that the data set of this folder name is prepared from.

        Returns:
            The archives, including those that are still to be downloaded, and the settings file that stands for a
            user's own images.

        """
        data = {data.folder.name: data for data in (*self.data, *self.larger)}[prepared]
        if data.times:
            return [], [_times_file(data)]
        dataset, downloads = self.dataset(data)
        remotes = dataset.remotes(dataset.options)
        absent = [dataset.archives / remote.name for remote in remotes if downloads and remote.urls]
        return list(dict.fromkeys([*dataset.inputs(), *absent])), []

    def changed(self) -> list[Path]:
        """Return the settings files that are missing or differ from the current suite."""

        def content(text: str) -> dict[str, Any]:
            # The path by which the suite was named does not matter.
            return {key: value for key, value in json.loads(text).items() if key != "command"}

        return [
            path
            for path, text in self.files.items()
            if not path.is_file() or content(path.read_text()) != content(text)
        ]

    def write(self, missing_only: bool = False) -> None:
        """Write the settings files; unchanged files keep their modification time, so that no rule runs again."""
        for path, text in self.files.items():
            if not (missing_only and path.is_file()):
                write_if_changed(path, text)


@functools.cache
@bugs_named()
def load_plan(name: str = "paper") -> Plan:
    """Return the plan of a suite, by its name or path.

    Raises:
        UserError: the file has problems, or networks do not support the sizes; all problems are listed.

    """
    path = suite_path(name)
    suite = load_suite(path)
    suite_name = path.stem
    if not re.fullmatch(r"[a-z0-9_]{1,64}", suite_name):
        raise UserError(f"{path}: the suite is named after its file, whose name can have only a-z, 0-9 and _")
    results = Path("results") / suite_name
    data = tuple(data_plan(key, entry) for key, entry in suite.datasets.items())
    runs: list[RunPlan] = []
    problems: list[str] = []
    for seed in suite.seeds:
        for plan in data:
            for key, entry in suite.methods.items():
                if entry.datasets is not None and plan.name not in entry.datasets:
                    continue
                if seed != suite.seeds[0] and not get_method(entry.method or key, entry.file).trainable:
                    # A seed decides only what is trained: another run would be the same.
                    continue
                settings, problem = run_settings(suite_name, suite, plan, key, entry, seed)
                runs.append(RunPlan(settings, results / "runs" / plan.name / key / f"seed{seed}"))
                problems += [problem] if problem else []
                if key in suite.ablation.methods and scales(settings) < 2:
                    problems.append(
                        f"ablation.methods: '{key}' has only one scale on {plan.name}; an ablation needs several"
                    )
    used = {run.settings.dataset for run in runs}
    problems += [f"datasets.{plan.name}: no method is trained on it" for plan in data if plan.name not in used]
    with collected(problems):
        gradients = _gradient_runs(suite, results, runs)
    if problems:
        # Problems repeat for every seed.
        raise UserError(*(f"{path}: {problem}" for problem in dict.fromkeys(problems)))
    networks = NetworkList(**suite.cost.model_dump(), networks=networks_of([run.settings for run in runs]))
    by_name = {plan.name: plan for plan in data}
    larger = [larger_data(by_name[run.settings.dataset], run.settings) for run in (*runs, *gradients)]
    distinct = {data.folder: data for data in larger if data is not None}
    plan = Plan(suite_name, suite, results, data, tuple(distinct.values()), tuple(runs), gradients, networks, {})
    prepared = (*plan.data, *plan.larger)
    plan.files.update({data.folder / "dataset.json": data.settings for data in prepared})
    plan.files.update({_times_file(data): canonical_json({"images": data.times}) for data in prepared if data.times})
    plan.files.update({run.folder / "run.json": run.text for run in (*runs, *gradients)})
    plan.files.update(_settings_files(plan, name))
    return plan


def _title(name: str, entry: MethodEntry) -> str:
    return entry.title or get_method(entry.method or name, entry.file).title


def _times_file(data: DataPlan) -> Path:
    # The images themselves are no inputs of a rule: Snakemake fails if the time of one lies in the future, and cannot
    # have every name.
    return data.folder / "images.json"


def _gradient_runs(suite: Suite, results: Path, runs: list[RunPlan]) -> tuple[RunPlan, ...]:
    """Return the gradient runs for Fig. 2: the method with and without intermediate outputs."""
    gradients = suite.gradients
    if gradients is None:
        return ()
    at = (gradients.method, gradients.dataset)
    base = next((run.settings for run in runs if (run.settings.entry, run.settings.dataset) == at), None)
    if base is None:
        raise UserError(
            f"gradients: the entry '{gradients.method}' is not trained on '{gradients.dataset}' in this suite"
        )
    if "intermediate_outputs" not in base.options:
        raise UserError(f"gradients.method: '{gradients.method}' has no intermediate outputs to train with and without")
    length = {"epochs": gradients.epochs, "decay_epochs": 0, "minutes": gradients.minutes}
    training = base.training.model_copy(update=length)
    method = method_of(base)
    plans = []
    for variant in ("with", "without"):
        options = {**base.options, "intermediate_outputs": variant == "with"}
        if problem := method.problem(method.Options.model_validate(options), base.size):
            raise UserError(f"gradients: '{gradients.method}' {variant} intermediate outputs: {problem}")
        update = {"training": training, "options": options, "gradient_records": gradients.records}
        settings = base.model_copy(update=update)
        plans.append(RunPlan(settings, results / "gradients" / gradients.dataset / variant))
    return tuple(plans)


def _settings_files(plan: Plan, given_name: str) -> dict[Path, str]:
    """Return one small file per stage, with only the settings that this stage depends on (see docs/design.md)."""
    suite = plan.suite
    sections: dict[str, Any] = {
        "evaluation": suite.evaluation.model_dump(mode="json"),
        "cost": plan.networks.model_dump(mode="json"),
        "compute": plan.machine.model_dump(mode="json"),
        "report": {
            **suite.report.model_dump(mode="json"),
            "suite": plan.name,
            "command": f"snakemake --cores all --config suite={shlex.quote(given_name)}",
            "description": suite.description,
            "titles": plan.titles,
            "metrics": list(suite.evaluation.metrics),
            "protocols": list(suite.evaluation.protocols),
            "seeds": list(suite.seeds),
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
    if suite.comparison is not None:
        sections["report"]["reference"] = suite.comparison.reference
    if suite.evaluation.precision != "fp32":
        sections["report"]["precision"] = suite.evaluation.precision
    if found := grids(suite.methods):
        # The axes as a list, since canonical JSON sorts keys.
        sections["report"]["grids"] = {
            name: {
                "title": _title(name, suite.methods[grid.entries[0]]),
                "axes": list(grid.axes.items()),
                "entries": grid.entries,
            }
            for name, grid in found.items()
        }
    return {plan.results / "settings" / f"{key}.json": canonical_json(value) for key, value in sections.items()}
