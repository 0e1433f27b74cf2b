"""Collect the results of a suite: runs, ablations, cost and gradients."""

import functools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from msgunet.core.attempts import State, ablated_facts, measured_facts, state_of, trained_facts
from msgunet.core.errors import UserError
from msgunet.core.files import read_settings, sha256_file
from msgunet.core.frames import read_frame
from msgunet.core.metrics import METRICS
from msgunet.core.settings import EvaluationSettings, NetworkList, RunSettings
from msgunet.data.manifest import read_manifest
from msgunet.data.registry import datasets
from msgunet.methods.registry import method_of
from msgunet.report.conditions import data_parts, training_conditions
from msgunet.report.files import lead_protocol


@dataclass(frozen=True)
class Run:
    """One run of the suite, with the folder of its results."""

    settings: RunSettings
    folder: Path
    title: str
    evaluation: EvaluationSettings

    @property
    def size(self) -> str:
        return "{}×{}".format(*self.settings.size)

    @functools.cached_property
    def state(self) -> State:
        """The state of the run."""
        return state_of(self.folder, self.settings, self.evaluation)

    @property
    def trainable(self) -> bool:
        """Whether the method is trained, unlike the reference rows `copy` and `mean`."""
        return method_of(self.settings).trainable

    def facts(self) -> dict[str, Any]:
        """Return the facts that the training recorded; empty if it is not done."""
        return trained_facts(self.folder, self.settings)

    def evaluation_facts(self) -> dict[str, Any]:
        """Return the facts that the evaluation recorded; empty if it is not done."""
        return measured_facts(self.folder, self.settings, self.evaluation)

    @functools.cached_property
    def changed(self) -> list[str]:
        """The results of the evaluation that differ from its checksums; empty if it recorded none."""
        facts, frame = self.evaluation_facts(), self.measured()
        if frame is None or "metrics_sha256" not in facts:
            return []
        changed = [] if sha256_file(self.folder / "metrics.csv") == facts["metrics_sha256"] else ["metrics.csv"]
        predictions = frame.drop_duplicates("id")
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(_sha256_if_there, (self.folder / name for name in predictions["prediction"])))
        differing = predictions["prediction"][predictions["prediction_sha256"] != found].to_list()
        if len(differing) > 4:
            differing = [*differing[:3], f"and {len(differing) - 3} more predictions"]
        return changed + differing

    def prediction(self, name: str) -> Path:
        """Return the path of the output for a test image."""
        return self.folder / "predictions" / f"{name}{self.settings.target_format.suffix}"

    def measured(self) -> pd.DataFrame | None:
        """Return one row per test image and protocol, or None if the run is not evaluated yet."""
        return read_frame(self.folder / "metrics.csv") if self.evaluation_facts() else None

    def ablation(self) -> pd.DataFrame | None:
        """Return one row per test image and ablation cell, or None if the ablation is not done yet."""
        return read_frame(self.folder / "ablation.csv") if ablated_facts(self.folder, self.settings) else None

    def table(self, name: str) -> pd.DataFrame | None:
        """Return a CSV written by the training, or None if it is not done."""
        return pd.read_csv(self.folder / name) if self.facts() else None


def _sha256_if_there(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None


class Collection:
    """Everything in a report, read from a suite's `report.json` and its results folder."""

    def __init__(self, settings_file: Path, results: Path) -> None:
        if not settings_file.is_file():
            raise UserError(f"there is no {settings_file}; run 'snakemake -n --config suite=NAME' to write it")
        self.settings: dict[str, Any] = json.loads(settings_file.read_text(encoding="utf-8"))
        self.results = results
        self.titles: dict[str, str] = self.settings["titles"]
        self.runs = [self._run(Path(folder)) for folder in self.settings["runs"]]
        self.gradients = [self._run(Path(folder)) for folder in self.settings["gradients"]]

    def _run(self, folder: Path) -> Run:
        settings = read_settings(folder / "run.json", RunSettings)
        kept = EvaluationSettings.model_fields.keys() & self.settings.keys()
        evaluation = EvaluationSettings(**{key: self.settings[key] for key in kept})
        return Run(settings, folder, self.titles[settings.entry], evaluation)

    @property
    def suite(self) -> str:
        return self.settings["suite"]

    @property
    def datasets(self) -> dict[str, dict[str, Any]]:
        return self.settings["datasets"]

    def runs_of(self, dataset: str) -> dict[str, list[Run]]:
        """Return the rows of a data set in the suite's order: for each entry, one run per seed.

        A reference row has only one run.
        """
        rows: dict[str, list[Run]] = {}
        for run in self.runs:
            if run.settings.dataset == dataset:
                rows.setdefault(run.settings.entry, []).append(run)
        return rows

    def ablated(self) -> list[tuple[str, str]]:
        """Return the data set and entry of each ablation."""
        entries = self.settings["ablation"]
        return [(dataset, name) for dataset in self.datasets for name in self.runs_of(dataset) if name in entries]

    @property
    def grids(self) -> dict[str, dict[str, Any]]:
        """The grids of the suite: by the name in its file, their title, axes and entries."""
        return self.settings.get("grids", {})

    def gridded(self) -> list[tuple[str, str]]:
        """Return the data set and name of each grid with its own table."""
        return [
            (dataset, name)
            for dataset in self.datasets
            for name, grid in self.grids.items()
            if grid["entries"][0] in self.runs_of(dataset)
        ]

    @property
    def reference(self) -> str | None:
        """The entry that all others are compared with, if the suite names one."""
        return self.settings.get("reference")

    def is_variant(self, settings: RunSettings) -> bool:
        """Whether a run is of another entry than the reference, but of its method: the paper does not speak of it."""
        of_reference = (run.settings.method for run in self.runs if run.settings.entry == self.reference)
        return settings.entry != self.reference and settings.method == next(of_reference, None)

    def several_seeds(self) -> bool:
        """Whether each trained row covers several trainings, one per seed."""
        return len(self.settings["seeds"]) > 1

    def protocols(self, dataset: str) -> list[str]:
        """Return the evaluated protocols, the one that compares the methods of a data set best first."""
        sizes = [run.settings.size for run in self.runs if run.trainable and run.settings.dataset == dataset]
        lead = lead_protocol(sizes, self.settings["protocol"], self.settings["protocols"])
        return sorted(self.settings["protocols"], key=lambda protocol: protocol != lead)

    def protocols_agree(self, dataset: str) -> bool:
        """Whether several protocols were evaluated that give the same numbers: all outputs have the data set's size."""
        size = tuple(self.datasets[dataset]["size"])
        sizes = {runs[0].settings.size for runs in self.runs_of(dataset).values()}
        return len(self.settings["protocols"]) > 1 and sizes == {size}

    def example_runs(self, dataset: str) -> list[Run]:
        """Return one run of each trained row, that of the first evaluated seed, to display a single training."""
        rows = self.runs_of(dataset).values()
        return [
            evaluated[0] for runs in rows if (evaluated := [r for r in runs if r.trainable and r.evaluation_facts()])
        ]

    def label(self, run: Run) -> str:
        """Return a run's title, with its seed if the entry has a training for each of several."""
        return f"{run.title}, seed {run.settings.seed}" if self.several_seeds() and run.trainable else run.title

    def unfinished(self, dataset: str) -> list[str]:
        """Return a note on each run of a data set that is not finished, or whose results were changed since."""
        runs = [run for runs in self.runs_of(dataset).values() for run in runs if run.state.status != "done"]
        notes = [f"{self.label(run)}: {run.state.sentence}" for run in runs]
        for run in self.gradients:
            if run.settings.dataset == dataset and run.state.status != "done":
                notes.append(f"{run.title}, gradients {run.folder.name} intermediate outputs: {run.state.sentence}")
        for run in (run for runs in self.runs_of(dataset).values() for run in runs if run.changed):
            notes.append(
                f"{self.label(run)}: {', '.join(run.changed)} changed after the evaluation, so these numbers prove "
                f"nothing; details: msgunet verify {self.suite_argument} --images 4"
            )
        return notes

    def undefined(self, dataset: str, protocol: str) -> list[str]:
        """Return a note on each metric that is not defined for all test images: how many it leaves out, and why."""
        titles_of: dict[str, list[str]] = {}
        for runs in self.runs_of(dataset).values():
            # The target decides, so the seeds do not differ.
            frame = next((frame for run in runs if (frame := run.measured()) is not None), None)
            for metric in self.settings["metrics"] if frame is not None else ():
                missing = frame[(frame["protocol"] == protocol) & frame[metric].isna()]
                # In results of earlier versions, no colon follows the metric.
                reasons = missing["note"].astype(str).str.extract(rf"(?:^|; ){metric}:? ([^;]*)")[0]
                for reason, count in reasons.fillna("no reason recorded").value_counts().items():
                    images = f"{count} image{'s' if count != 1 else ''}"
                    titles_of.setdefault(f"{images} without {METRICS[metric].name}: {reason}", []).append(runs[0].title)
        every = sum(any(run.evaluation_facts() for run in runs) for runs in self.runs_of(dataset).values())
        return [note if len(titles) == every else f"{', '.join(titles)}: {note}" for note, titles in titles_of.items()]

    def cost(self) -> pd.DataFrame | None:
        """Return the cost of the suite's current networks, or None if it is not counted yet."""
        path = self.results / "cost.csv"
        if not path.is_file() or path.stat().st_size <= 1:
            return None
        frame = read_frame(path)
        networks = read_settings(self.results / "settings" / "cost.json", NetworkList).networks
        frame = frame[frame["settings"].isin({network.identity for network in networks})].reset_index(drop=True)
        return frame if len(frame) else None

    def speed(self) -> pd.DataFrame | None:
        """Return the rows of `msgunet bench` for the suite's entries, or None if there are none."""
        path = self.results / "speed.csv"
        if not path.is_file():
            return None
        frame = read_frame(path)
        return frame[frame["entry"].isin(self.titles)] if frame["entry"].isin(self.titles).any() else None

    @property
    def suite_argument(self) -> str:
        """The suite's name or path, as the user gave it."""
        return self.settings["command"].partition("suite=")[2]

    def command(self, target: str) -> str:
        """Return the command that creates a file of this suite's results."""
        return f"{self.settings['command']} -- {self.results / target}"

    def prepared(self, dataset: str) -> Path:
        """Return the folder of a prepared data set."""
        return Path(next(iter(self.runs_of(dataset).values()))[0].settings.data)

    def data_conditions(self, dataset: str) -> str:
        """Describe a data set: its title, size, image formats and number of pairs."""
        entry = self.datasets[dataset]
        title = datasets()[entry["kind"]].title
        size = "{}×{}".format(*entry["size"])
        manifest = self.prepared(dataset) / "manifest.csv"
        if not manifest.is_file():
            return f"{title} at {size}; the prepared images do not exist (not prepared yet, or deleted)"
        splits = [pair.split for pair in read_manifest(manifest)]
        settings = next(run.settings for run in self.runs if run.settings.dataset == dataset)
        formats = " → ".join(dict.fromkeys(map(str, settings.formats)))
        counts = f"{splits.count('train')} training and {splits.count('test')} test pairs"
        return f"{title} at {size}, {formats}: {'; '.join([counts, *data_parts(settings)])}"

    def run_conditions(self, runs: list[Run]) -> str:
        """Describe the training behind a row."""
        return f"{runs[0].title}: " + ", ".join(training_conditions(runs[0].settings, runs[0].facts()))

    def environment(self) -> str:
        """Describe the devices and software of all finished runs and evaluations."""
        names = ("device", "torch", "metrics version", "networks evaluated in", "commit")
        values_of: dict[str, set[str]] = {name: set() for name in names}
        for run in self.runs:
            for facts in (run.facts(), run.evaluation_facts()):
                if facts:
                    values_of["device"].add(f"{facts['device']}, CPU threads per job: {facts['threads']}")
                    values_of["commit"].add(facts["commit"])
                    values_of["torch"].add(facts["versions"].get("torch", "unknown"))
            if facts := run.evaluation_facts():
                # Results of before versions were recorded have the first.
                values_of["metrics version"].add(str(facts.get("metrics_version", 1)))
                if run.trainable:
                    values_of["networks evaluated in"].add(facts.get("network_precision", "fp32"))
        return "; ".join(f"{name} {', '.join(sorted(values))}" for name, values in values_of.items() if values)
