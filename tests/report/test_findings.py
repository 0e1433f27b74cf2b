"""docs/findings.md: what it quotes is what the tables of the shared results say."""

import re

import pandas as pd
import pytest
from conftest import ROOT

_SHARED = sorted(path.parent for path in (ROOT / "results" / "cpu").glob("*/*/runs.json"))


@pytest.mark.parametrize("folder", _SHARED, ids=lambda folder: folder.name)
def test_the_findings_quote_the_tables(folder):
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    (section,) = (part for part in re.split(r"^## ", text, flags=re.M) if folder.relative_to(ROOT).as_posix() in part)
    rows = [line.replace("**", "").replace(r"\*", "*") for line in section.splitlines() if line.startswith("|")]

    expected = [
        f"| {claim.claim} | {claim.verdict} | {claim.measured} |"
        for claim in pd.read_csv(folder / "tables" / "claims.csv").itertuples()
    ]
    table = pd.read_csv(folder / "tables" / "table1.csv").query("protocol == 'native'")
    expected += [f"| {row.title} | {row.psnr:.2f} | {row.ssim:.3f} | {row.vif:.3f} |" for row in table.itertuples()]
    assert [row for row in expected if row not in rows] == []


def test_there_are_shared_results():
    assert _SHARED
