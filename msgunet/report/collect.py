"""Read what has been measured: runs, ablations, cost, gradients."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from msgunet import registry
from msgunet.config import RunSettings
from msgunet.data.manifest import read_manifest
from msgunet.errors import UserError
from msgunet.files import read_settings
from msgunet.method import perceptual_label, schedule_label


@dataclass(frozen=True)
class Run:
    """One run of the suite and where its files are."""

    settings: RunSettings
    folder: Path
    title: str

    @property
    def size(self) -> str:
        return "{}×{}".format(*self.settings.size)

    def facts(self, name: str = "training.json") -> dict[str, Any]:
        """What `train` or `evaluate` wrote about itself; empty where it has not run."""
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def table(self, name: str) -> pd.DataFrame | None:
        """A CSV of the run, or None where it is not there yet."""
        path = self.folder / name
        return pd.read_csv(path) if path.is_file() else None


class Collection:
    """All that the report shows, from a suite's `report.json` and its results folder."""

    def __init__(self, settings_file: Path, results: Path) -> None:
        if not settings_file.is_file():
            raise UserError(f"there is no {settings_file}; 'snakemake -n --config suite=NAME' writes it")
        self.settings: dict[str, Any] = json.loads(settings_file.read_text(encoding="utf-8"))
        self.results = results
        self.titles: dict[str, str] = self.settings["titles"]
        self.runs = [self._run(Path(folder)) for folder in self.settings["runs"]]
        self.gradients = [self._run(Path(folder)) for folder in self.settings["gradients"]]

    def _run(self, folder: Path) -> Run:
        settings = read_settings(folder / "run.json", RunSettings)
        return Run(settings, folder, self.titles[settings.entry])

    @property
    def suite(self) -> str:
        return self.settings["suite"]

    @property
    def datasets(self) -> dict[str, dict[str, Any]]:
        return self.settings["datasets"]

    def runs_of(self, dataset: str) -> dict[str, list[Run]]:
        """Rows of a data set in the suite's order, each with one run per seed."""
        rows: dict[str, list[Run]] = {}
        for run in self.runs:
            if run.settings.dataset == dataset:
                rows.setdefault(run.settings.entry, []).append(run)
        return rows

    def cost(self) -> pd.DataFrame | None:
        """The cost table's rows, or None where it is not there yet."""
        path = self.results / "cost.csv"
        return pd.read_csv(path) if path.is_file() and path.stat().st_size > 1 else None

    def command(self, target: str) -> str:
        """The command that makes a file of this suite's results."""
        return f"{self.settings['command']} -- {self.results / target}"

    def data_conditions(self, dataset: str) -> str:
        """One sentence about a data set: pairs and size."""
        entry = self.datasets[dataset]
        title = registry.datasets()[entry["kind"]].title
        size = "{}×{}".format(*entry["size"])
        first = next(iter(self.runs_of(dataset).values()))[0]
        manifest = Path(first.settings.data) / "manifest.csv"
        if not manifest.is_file():
            return f"{title} at {size}, not prepared yet"
        splits = [pair.split for pair in read_manifest(manifest)]
        return f"{title} at {size}: {splits.count('train')} training and {splits.count('test')} test pairs"

    def run_conditions(self, runs: list[Run]) -> str:
        """One sentence about a row's training."""
        settings = runs[0].settings
        method = registry.build_method(settings)
        if not method.trainable:
            return f"{runs[0].title}: nothing to train"
        training = settings.training
        parts = [
            schedule_label(method.phases(training)),
            f"batch {training.batch_size}",
            f"learning rate {training.learning_rate:g}",
        ]
        if training.decay_epochs:
            parts.append(f"falling from the {training.decay_from} decay epoch on")
        adam = (training.beta1, training.beta2)
        if adam != (0.5, 0.999):
            parts.append("Adam's betas {:g} and {:g}".format(*adam))
        usual = method.Options().model_dump(mode="json")
        parts += [f"{key} {_label(value)}" for key, value in settings.options.items() if value != usual.get(key)]
        if training.precision != "fp32":
            parts.append(training.precision)
        if training.flip:
            parts.append("mirrored at random")
        if training.jitter:
            parts.append(f"moved at random ({training.jitter} pixels)")
        if training.ema:
            parts.append(f"average of the generator's weights (decay {training.ema:g})")
        if settings.perceptual is not None:
            parts.append(f"perceptual loss on {perceptual_label(settings.perceptual)}")
        facts = runs[0].facts()
        if facts:
            parts.append(f"{facts['steps']} steps in {facts['seconds'] / 60:.1f} min")
        return f"{runs[0].title}: " + ", ".join(filter(None, [*parts, method.conditions()]))

    def environment(self) -> str:
        """One sentence about software and device, of all runs that are done."""
        found: dict[str, set[str]] = {"device": set(), "torch": set(), "piq": set(), "commit": set()}
        for run in self.runs:
            for facts in (run.facts(), run.facts("evaluation.json")):
                if facts:
                    found["device"].add(f"{facts['device']}, CPU threads per job: {facts['threads']}")
                    found["commit"].add(facts["commit"])
                    for package in ("torch", "piq"):
                        found[package].add(facts["versions"].get(package, "unknown"))
        return "; ".join(f"{name} {', '.join(sorted(values))}" for name, values in found.items() if values)


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
