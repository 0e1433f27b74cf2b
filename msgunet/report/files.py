"""The files in the report of a finished suite, known before anything is measured."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table_names(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the formatted tables by section, from the settings of a report."""
    groups = [f"{dataset}_{protocol}" for dataset in report["datasets"] for protocol in report["protocols"]]
    return {
        "design": [f"design_{dataset}_{protocol}" for dataset in compared(report) for protocol in report["protocols"]],
        "results": [
            *(f"table1_{group}" for group in groups),
            *(f"seeds_{group}" for group in groups if len(report["seeds"]) > 1),
        ],
        "comparisons": [f"comparisons_{group}" for group in groups],
        "grids": _gridded(report),
        "reproduction": ["claims", "reproduction"],
        "ablation": _ablated(report),
        "cost": ["cost"],
    }


def figure_names(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the figures by section, from the settings of a report."""
    trained = [dataset for dataset, entries in report["trained"].items() if entries]
    return {
        "design": [f"design_{dataset}" for dataset in compared(report)],
        "results": [
            *(f"distributions_{dataset}" for dataset in report["datasets"]),
            *(f"quality_cost_{dataset}" for dataset in trained),
        ],
        "grids": _gridded(report),
        "images": [f"images_{dataset}" for dataset in trained],
        "ablation": _ablated(report),
        "gradients": ["fig2_gradients", "gradient_depth"] if report["gradients"] else [],
        "training": [f"learning_{dataset}" for dataset in trained],
        "cost": ["cost_by_size"] if trained else [],
    }


def compared(report: Mapping[str, Any]) -> list[str]:
    """Return the data sets on which entries are compared with the suite's reference entry; none if it names none."""
    if "reference" not in report:
        return []
    return [dataset for dataset, entries in report["trained"].items() if len(entries) > 1]


def lead_protocol(sizes: Iterable[tuple[int, int]], wanted: str, protocols: Sequence[str]) -> str:
    """Return the protocol that comes first for trained methods of these sizes.

    Args:
        sizes: the sizes of the trained methods.
        wanted: `report.protocol` of the suite.
        protocols: the protocols that the suite evaluates.

    """
    if wanted != "auto":
        return wanted
    best = "full" if len(set(sizes)) > 1 else "native"
    return best if best in protocols else protocols[0]


def _ablated(report: Mapping[str, Any]) -> list[str]:
    return [
        f"ablation_{dataset}_{entry}"
        for dataset, entries in report["trained"].items()
        for entry in entries
        if entry in report["ablation"]
    ]


def _gridded(report: Mapping[str, Any]) -> list[str]:
    return [
        f"grid_{dataset}_{name}"
        for dataset, entries in report["trained"].items()
        for name, grid in report.get("grids", {}).items()
        if grid["entries"][0] in entries
    ]
