"""The HTML page: a folder with all tables, figures and test images of a suite, which a browser opens from disk."""

import datetime
import json
import shutil
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from msgunet.core.files import work_folder, write_text
from msgunet.core.table import Table
from msgunet.data.decode import open_image
from msgunet.data.registry import datasets
from msgunet.methods.registry import method_of
from msgunet.report.collect import Collection
from msgunet.report.page.images import write_images
from msgunet.report.published import published
from msgunet.report.tables import Tables, build_tables

_HERE = Path(__file__).parent
_STATIC = ("page.css", "page.js", "viewer.js", "vendor")


def write_page(settings_file: Path, results: Path) -> Path:
    """Write the folder `results/report` and return the path of its `index.html`.

    The page needs no network and no file outside the folder. It is built in a temporary folder, which then replaces the
    old one.
    """
    collection = Collection(settings_file, results)
    folder = results / "report"
    with work_folder(results / ".tmp-report", lock=results / ".lock-page") as work:
        new = work / "report"
        _write(collection, new)
        if folder.exists():
            folder.rename(work / "old")
        new.rename(folder)
    return folder / "index.html"


def _write(collection: Collection, folder: Path) -> None:
    tables = build_tables(collection)
    (folder / "assets").mkdir(parents=True)
    for name in _STATIC:
        copy = shutil.copytree if (_HERE / name).is_dir() else shutil.copyfile
        copy(_HERE / name, folder / "assets" / name)
    figures = _figures(collection.results, folder)
    tables.write(folder / "tables")
    images = write_images(collection, folder / "images")
    # A script rather than JSON: browsers do not let a page from disk read other files.
    write_text(folder / "assets" / "images.js", f"window.suite = {json.dumps(images)};\n")
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template("page.html.jinja").render(
        suite=collection.suite,
        description=collection.settings["description"],
        command=collection.settings["command"],
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        environment=collection.environment(),
        tables=_shown(collection, tables),
        reference=collection.titles.get(collection.reference),
        agreeing=[dataset for dataset in collection.datasets if collection.protocols_agree(dataset)],
        figures=figures,
        images=bool(images),
        unfinished=[note for dataset in collection.datasets for note in collection.unfinished(dataset)],
        paper=_paper_tables(),
        data=list({e["kind"]: datasets()[e["kind"]] for e in collection.datasets.values()}.values()),
        trainings={
            dataset: [
                (collection.run_conditions(runs), method_of(runs[0].settings).reference)
                for runs in collection.runs_of(dataset).values()
            ]
            for dataset in collection.datasets
        },
    )
    write_text(folder / "index.html", html)


def _shown(collection: Collection, tables: Tables) -> dict[str, list[Table]]:
    """Return the tables by section, without a second protocol that has the same numbers."""
    repeated = {
        f"{kind}_{dataset}_{protocol}"
        for dataset in collection.datasets
        if collection.protocols_agree(dataset)
        for protocol in collection.protocols(dataset)[1:]
        for kind in ("design", "table1", "seeds", "comparisons")
    }
    return {
        section: [table for table in of_section if table.name not in repeated]
        for section, of_section in tables.sections.items()
    }


def _figures(results: Path, folder: Path) -> list[dict]:
    """Copy the figures into the folder and return the entries of `figures.json`, with image sizes added."""
    listing = results / "figures" / "figures.json"
    if not listing.is_file():
        return []
    figures = json.loads(listing.read_text(encoding="utf-8"))
    (folder / "figures").mkdir()
    for figure in figures:
        for suffix in ("png", "pdf"):
            name = f"{figure['name']}.{suffix}"
            shutil.copyfile(results / "figures" / name, folder / "figures" / name)
        path = folder / "figures" / f"{figure['name']}.png"
        with open_image(path, str(path)) as image:
            figure["width"], figure["height"] = image.size
    return figures


def _paper_tables() -> list[Table]:
    """Return the paper's own tables, to be read next to ours."""
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
