"""Helpers that plan suites written by tests."""

from pathlib import Path

import pytest
import yaml

from msgunet.core.errors import UserError
from msgunet.suite.plan import load_plan

GOOD = {
    "datasets": {"bluemarble": {"size": [64, 64]}},
    "methods": {"msgunet": {}, "pix2pix": {"size": [32, 32]}},
}


def plan_of(folder: Path, suite: dict | str, name: str = "mine"):
    path = folder / f"{name}.yaml"
    path.write_text(suite if isinstance(suite, str) else yaml.safe_dump(suite))
    load_plan.cache_clear()
    return load_plan(str(path))


def problems_of(folder: Path, suite: dict | str) -> list[str]:
    with pytest.raises(UserError) as caught:
        plan_of(folder, suite)
    return list(caught.value.problems)


def changed_files(folder: Path, before: dict, after: dict) -> set[str]:
    old, new = plan_of(folder, before).files, plan_of(folder, after).files
    return {str(path) for path in {*old, *new} if old.get(path) != new.get(path)}
