"""All tables of a suite as CSV, Markdown, LaTeX and HTML."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from msgunet.core.files import atomic, remove_leftovers
from msgunet.core.table import Table
from msgunet.report.ablation import ablation_frame, ablation_grid
from msgunet.report.claims import claims_frame, claims_table
from msgunet.report.collect import Collection
from msgunet.report.costs import cost_table
from msgunet.report.design import design_frame, design_table
from msgunet.report.files import compared
from msgunet.report.grids import grid_table
from msgunet.report.reproduction import reproduction_frame, reproduction_table
from msgunet.report.speed import speed_table
from msgunet.report.summary import comparisons, summarise, trainings
from msgunet.report.table1 import comparisons_table, seeds_table, table1

_ENDINGS = {".csv", ".md", ".tex", ".html", ".pdf", ".png"}


@dataclass(frozen=True)
class Tables:
    """All tables of a suite: formatted tables by section, and their numbers by name of the CSV file."""

    sections: dict[str, list[Table]]
    frames: dict[str, pd.DataFrame]

    @property
    def all(self) -> list[Table]:
        """The tables of all sections."""
        return [table for tables in self.sections.values() for table in tables]

    def write(self, folder: Path) -> None:
        """Write all tables into a folder, and remove the files of an earlier state of the suite."""
        for name, frame in self.frames.items():
            with atomic(folder / f"{name}.csv") as temporary:
                frame.to_csv(temporary, index=False, lineterminator="\n", float_format="%.8g")
        for table in self.all:
            table.write(folder)
        remove_stale(folder, {*self.frames, *(table.name for table in self.all)})


def build_tables(collection: Collection) -> Tables:
    """Build every table from the available results; cells without a result state the reason."""
    summary, pairs = summarise(collection), comparisons(collection)
    ablation = ablation_frame(collection)
    cost, speed = collection.cost(), collection.speed()
    frames = {"table1": summary, "seeds": trainings(collection), "comparisons": pairs, "ablation": ablation}
    frames["reproduction"] = reproduction_frame(summary, ablation, cost, collection)
    frames["claims"] = claims_frame(collection, pairs, ablation)
    if collection.reference is not None:
        frames["design"] = design_frame(collection, summary, cost)
    groups = [(dataset, protocol) for dataset in collection.datasets for protocol in collection.protocols(dataset)]
    sections = {
        "design": [
            design_table(collection, *group, _part(frames["design"], *group))
            for group in groups
            if group[0] in compared(collection.settings)
        ],
        "results": [
            *(table1(collection, *group, _part(summary, *group), _part(pairs, *group)) for group in groups),
            *(
                seeds_table(collection, *group, _part(frames["seeds"], *group))
                for group in groups
                if collection.several_seeds()
            ),
        ],
        "comparisons": [comparisons_table(collection, *group, _part(pairs, *group)) for group in groups],
        "grids": [grid_table(collection, summary, *key) for key in collection.gridded()],
        "reproduction": [
            claims_table(frames["claims"], collection),
            reproduction_table(frames["reproduction"], collection),
        ],
        "ablation": [ablation_grid(collection, ablation, *key) for key in collection.ablated()],
        "cost": [cost_table(cost, collection.titles, collection.command("tables/cost.csv"))],
    }
    frames["cost"] = (pd.DataFrame(columns=["entry"]) if cost is None else cost).assign(suite=collection.suite)
    if speed is not None:
        frames["speed"] = speed.assign(suite=collection.suite)
        command = f"msgunet bench {collection.suite_argument} --out {collection.results / 'speed.csv'}"
        sections["cost"].append(speed_table(speed, collection.titles, command))
    return Tables(sections, frames)


def write_tables(settings_file: Path, results: Path) -> None:
    """Write every table as Markdown, LaTeX and HTML, and their numbers as CSV, in `results/tables`."""
    build_tables(Collection(settings_file, results)).write(results / "tables")


def remove_stale(folder: Path, names: set[str]) -> None:
    """Remove tables and figures of an earlier state of the suite: those whose names are not in `names`.

    Another process can make the same report at the same time.
    """
    remove_leftovers(folder)
    for path in folder.iterdir():
        if path.suffix in _ENDINGS and path.stem not in names and not path.name.startswith("."):
            path.unlink(missing_ok=True)


def _part(frame: pd.DataFrame, dataset: str, protocol: str) -> pd.DataFrame:
    rows = (frame["dataset"] == dataset) & (frame["protocol"] == protocol)
    return frame[rows].reset_index(drop=True)
