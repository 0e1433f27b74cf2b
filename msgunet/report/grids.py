"""The metrics over the values of a grid: a table for each data set and grid, and the numbers of its figure."""

import pandas as pd

from msgunet.core.metrics import METRICS, headings
from msgunet.core.table import Cell, Table, number
from msgunet.report.collect import Collection
from msgunet.report.conditions import common_conditions
from msgunet.suite.grid import label, words


def grid_cells(
    collection: Collection, summary: pd.DataFrame, dataset: str, name: str
) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Return the means of each metric over the values of a grid, in the protocol that comes first.

    Args:
        collection: the suite's results.
        summary: the rows of Table 1.
        dataset: name of the data set.
        name: name of the entry with the grid in the suite's file.

    Returns:
        By metric, two frames: the numbers, NaN where there is none, and the states of the entries. There is a row for
        each value of the grid's first key and a column for each of the second one, or a single column.

    """
    grid = collection.grids[name]
    rows = summary[(summary["dataset"] == dataset) & (summary["protocol"] == collection.protocols(dataset)[0])]
    rows = rows.set_index("entry").loc[grid["entries"]]
    labels = [[label(key, value) for value in values] for key, values in grid["axes"]]
    index, columns = labels if len(labels) > 1 else (labels[0], ["mean"])

    def folded(values: pd.Series) -> pd.DataFrame:
        return pd.DataFrame(values.to_numpy().reshape(len(index), len(columns)), index, columns)

    return {
        metric: (folded(rows[metric].astype(float)), folded(rows["status"]))
        for metric in collection.settings["metrics"]
    }


def shade_range(numbers: pd.DataFrame, metric: str) -> tuple[float, float]:
    """Return the worst and the best value of the shades: at least ten units of the last digit apart, not to show noise.

    Of a metric in which lower is better, the first is the larger one.
    """
    low, high, least = numbers.min(axis=None), numbers.max(axis=None), 10 ** (1 - METRICS[metric].digits)
    return (low, max(high, low + least)) if METRICS[metric].higher_is_better else (high, min(low, high - least))


def grid_title(collection: Collection, dataset: str, name: str) -> str:
    """Return the title of a grid's table and figure."""
    grid = collection.grids[name]
    return f"{grid['title']} on {dataset}: {' and '.join(words(key) for key, _ in grid['axes'])}"


def grid_conditions(collection: Collection, dataset: str, name: str) -> list[str]:
    """Return what the means of a grid are over, and what all of its entries have in common."""
    rows = [collection.runs_of(dataset)[entry] for entry in collection.grids[name]["entries"]]
    size = [rows[0][0].size] if len({runs[0].size for runs in rows}) == 1 else []
    seeds = [str(run.settings.seed) for run in rows[0]]
    trainings = f"{len(seeds)} trainings of each entry (seeds {', '.join(seeds)})" if len(seeds) > 1 else "one training"
    return [
        f"Means over test images and {trainings} in the {collection.protocols(dataset)[0]} protocol.",
        f"All entries: {', '.join([rows[0][0].settings.method, *size, *common_conditions(rows)])}.",
    ]


def grid_table(collection: Collection, summary: pd.DataFrame, dataset: str, name: str) -> Table:
    """Return the table of a grid on a data set: for each metric, rows and columns are the values of the two keys."""
    cells = grid_cells(collection, summary, dataset, name)
    rows: list[list[Cell | str]] = []
    names = headings(list(cells))
    for metric, (numbers, states) in cells.items():
        worst, best = shade_range(numbers, metric)
        for row_label, values in numbers.iterrows():
            row: list[Cell | str] = [names[metric], str(row_label)]
            for column, value in values.items():
                status = states.loc[row_label, column]
                shade = None if pd.isna(value) else (value - worst) / (best - worst)
                missing = "undefined" if status == "done" else status
                row.append(number(value, f".{METRICS[metric].digits}f", missing, shade=shade))
            rows.append(row)
    first = collection.grids[name]["axes"][0][0]
    columns = ["Metric", words(first), *next(iter(cells.values()))[0].columns]
    notes = [
        *grid_conditions(collection, dataset, name),
        "Table 1 has the interval of each entry, and the table of differences the tests between them.",
        collection.data_conditions(dataset),
        *collection.unfinished(dataset),
        collection.environment(),
    ]
    title, command = grid_title(collection, dataset, name), collection.command("tables/table1.csv")
    shades = "Shades range from the worst to the best value of a metric, at least over ten units of the last digit."
    return Table(f"grid_{dataset}_{name}", title, columns, rows, notes, command, shades=shades)
