"""The numbers in results/published are those of the paper's text."""

import numpy as np
import pandas as pd

from msgunet.report.published import published


def test_published_numbers_are_the_papers(shared):
    text = (shared / "paper" / "msg-unet.txt").read_text()
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in text.splitlines() if "\t" in line}
    for _, row in published("table1").iterrows():
        size = f"{row['width']} × {row['height']}"
        line = next(cells for key, cells in rows.items() if key.startswith(f"{row['title']} ({size})"))
        start = {"cityscapes": 0, "nyu": 3, "maps": 6}[row["dataset"]]
        assert [float(v) for v in line[start : start + 3]] == [row["psnr"], row["ssim"], row["vif"]]
    grids = pd.concat([published("table2"), published("table3")])
    assert len(grids) == 25 + 32
    for _, row in grids.iterrows():
        if row["dataset"] == "cityscapes":
            line = rows[f"{row['input_width']}×{row['input_height']}"]
            column = int(np.log2(row["output_width"] / 128))
        else:
            line = rows[str(row["input_width"])]
            column = int(np.log2(row["output_width"] / 64)) + (4 if row["dataset"] == "maps" else 0)
        assert float(line[column]) == row["ssim"]
