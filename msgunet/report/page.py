"""One self-contained HTML page with all tables and figures of a suite."""

import base64
import datetime
import json
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from msgunet import registry
from msgunet.files import write_text
from msgunet.published import published
from msgunet.report.collect import Collection
from msgunet.report.render import Table
from msgunet.report.tables import build_tables


def write_page(settings_file: Path, results: Path) -> Path:
    """Write `results/report/index.html`: tables, figures, conditions, commands; it needs no other file."""
    collection = Collection(settings_file, results)
    figures_file = results / "figures" / "figures.json"
    figures = json.loads(figures_file.read_text(encoding="utf-8")) if figures_file.is_file() else []
    for figure in figures:
        png = results / "figures" / f"{figure['name']}.png"
        figure["data"] = base64.b64encode(png.read_bytes()).decode()
    tables = build_tables(collection)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    licences = {entry["kind"]: registry.datasets()[entry["kind"]] for entry in collection.datasets.values()}
    html = environment.get_template("page.html.jinja").render(
        suite=collection.suite,
        description=collection.settings["description"],
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        environment=collection.environment(),
        results=tables.results,
        ablation=tables.ablation,
        cost=tables.cost,
        figures=figures,
        paper=_paper_tables(),
        data=list(licences.values()),
        rows=[
            (collection.run_conditions(runs), registry.get_method(runs[0].settings.method).reference)
            for dataset in collection.datasets
            for runs in collection.runs_of(dataset).values()
        ],
    )
    path = results / "report" / "index.html"
    write_text(path, html)
    return path


def _paper_tables() -> list[Table]:
    """The paper's own tables, for reading beside ours."""
    tables = []
    for name, title in (
        ("table1", "The paper's Table 1"),
        ("table2", "The paper's Table 2 (SSIM)"),
        ("table3", "The paper's Table 3 (SSIM)"),
        ("complexity", "The paper's complexity figures"),
    ):
        frame = published(name).drop(columns=["table", "method", "parameters", "place"], errors="ignore")
        rows = [["–" if pd.isna(value) else str(value) for value in row] for row in frame.itertuples(index=False)]
        columns = [column.replace("_", " ") for column in frame.columns]
        tables.append(Table(name, title, columns, rows, [], f"results/published/{name}.csv"))
    return tables
