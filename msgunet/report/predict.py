"""The table of `msgunet profile --predict`."""

from typing import TYPE_CHECKING

import pandas as pd

from msgunet.core.table import Cell, Table, number

if TYPE_CHECKING:
    from msgunet.device.limits import Limits


def predict_table(frame: pd.DataFrame, subject: str, limits: "Limits", rows: int, command: str) -> Table:
    """Return the table of foretold operations (see `foretold`), at most `rows` rows and the total.

    Args:
        frame: the rows of `foretold`.
        subject: network, size, part and precision in words.
        limits: of the device.
        rows: rows to show.
        command: command that makes the table.

    """
    total = frame[["calls", "flop", "bytes", "ms"]].sum()
    cells: list[list[Cell | str]] = [
        [row["operation"], row["precision"], *_numbers(row, total)] for row in frame.head(rows).to_dict("records")
    ]
    if len(frame) > rows:
        cells.append([f"({len(frame) - rows} more)", "", *_numbers(frame.iloc[rows:][list(total.index)].sum(), total)])
    cells.append(["total", "", *_numbers(total, total)])
    floor = sum(row["flop"] / limits.rates[row["precision"]] / 1e9 for row in frame.to_dict("records") if row["flop"])
    notes = [
        f"Foretold, not measured: the engine's operations, counted on shapes, at the limits of {limits.origin}: "
        f"{', '.join(f'{rate:.3g} TFLOP/s in {name}' for name, rate in limits.rates.items())} and "
        f"{limits.bandwidth:.4g} GB/s.",
        f"{total['calls']:,.0f} operations, each at least one launch. At the limits, one after the other, they take "
        f"{total['ms']:.3g} ms; the arithmetic alone takes {floor:.3g} ms.",
        "Time: for each call, FLOP divided by the rate or bytes divided by the bandwidth, whichever is longer. Bytes: "
        "each tensor that a call reads or writes, once; caches and copies between memory layouts are not counted. "
        "1 MAC = 2 FLOP.",
        "bias, bias gradient: passes of their own on CUDA, where the libraries' convolutions have no bias.",
    ]
    columns = ["Operation", "Precision", "Calls", "GFLOP", "GB", "Time (ms)", "Share"]
    return Table("predict", f"{subject}: foretold", columns, cells, notes, command)


def _numbers(row: pd.Series | dict, total: pd.Series) -> list[Cell]:
    return [
        number(row["calls"], ",.0f"),
        number(row["flop"] / 1e9, ",.1f"),
        number(row["bytes"] / 1e9, ".3f"),
        number(row["ms"], ".3f"),
        number(row["ms"] / total["ms"], ".1%"),
    ]
