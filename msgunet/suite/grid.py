"""Grids: an entry of a suite's file that stands for several, one for each combination of some values."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msgunet.core.lists import distinct
from msgunet.core.registry import suggest
from msgunet.suite.models import MethodEntry

_TRAINING = "training."


@dataclass(frozen=True)
class Grid:
    """The entries that one entry with a grid stands for.

    Attributes:
        axes: the values of each key, in the order of the file.
        entries: the name of the entry at each combination of values, in the order of `itertools.product`.

    """

    axes: dict[str, list[Any]]
    entries: list[str]


def expand(methods: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[str]], list[str]]:
    """Replace each entry that has a grid by one entry for each combination of the grid's values.

    Args:
        methods: the section `methods` of a suite's file, as it was read.

    Returns:
        - The section with all entries, in which each of a grid has its own values as a grid of one combination. A grid
          of another form is left for the validation.
        - For each entry with a grid, the names of those that it stands for.
        - The problems with names that two entries would have, and with keys that the entry sets in two places.

    """
    expanded: dict[str, Any] = {}
    names: dict[str, list[str]] = {}
    problems: list[str] = []
    for name, entry in methods.items():
        grid = entry.get("grid") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not _is_grid(grid):
            expanded[name] = entry
            continue
        problems += _set_twice(name, entry)
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            place = _place(name, point)
            if place in methods or place in expanded:
                problems.append(f"methods.{name}.grid: two entries would have the name '{place}'")
                continue
            expanded[place] = {"method": name, **_at(entry, point)}
            names.setdefault(name, []).append(place)
    return expanded, names, problems


def _set_twice(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of a grid that the entry also sets by itself."""
    for key in entry["grid"]:
        section, word = _section(key)
        own = entry.get(section)
        if isinstance(own, dict) and word in own:
            yield (
                f"methods.{name}.grid.{key}: the grid sets it, but so does methods.{name}.{section}.{word} "
                f"({own[word]}), which would be ignored; remove one of them"
            )


def in_grids(problems: Iterable[str], methods: Any, names: Mapping[str, Iterable[str]]) -> list[str]:
    """Return problems with the entries of grids as problems with the places where a file has them.

    Args:
        problems: each begins with a place such as `methods.mine_width_8.options.width`.
        methods: the section with all entries, as `expand` returns it.
        names: the names of the entries that each entry with a grid stands for.

    """
    origins = {place: name for name, places in names.items() for place in places}

    def located(problem: str) -> str:
        place = re.match(r"methods\.(\w+)(?:\.(options|training)\.(\w+))?", problem)
        if place is None or place[1] not in origins:
            return problem
        key = f"{_TRAINING if place[2] == 'training' else ''}{place[3]}"
        if key not in methods[place[1]]["grid"]:
            return f"methods.{origins[place[1]]}{problem[place.end(1) :]}"
        rest = problem[place.end() :]
        if place[2] == "training":
            rest = re.sub(r"did you mean '", f"did you mean '{_TRAINING}", rest)
        return f"methods.{origins[place[1]]}.grid.{key}{rest}"

    return [located(problem) for problem in problems]


def suggest_entry(name: str, known: Iterable[str], names: Mapping[str, Iterable[str]]) -> str:
    """Return a hint for a name that is no entry: the entries of the grid that has this name, or as `suggest`.

    `names` are the names of the entries that each entry with a grid stands for.
    """
    if name in names:
        return f"it has a grid, whose entries are {', '.join(names[name])}"
    return suggest(name, known)


def _is_grid(grid: Any) -> bool:
    return (
        isinstance(grid, dict)
        and 1 <= len(grid) <= 2
        and all(isinstance(key, str) and _are_values(values) for key, values in grid.items())
    )


def _are_values(values: Any) -> bool:
    if not isinstance(values, list) or not values:
        return False
    try:
        distinct(values)
    except ValueError:
        return False
    return True


def grids(methods: Mapping[str, MethodEntry]) -> dict[str, Grid]:
    """Return the grids of a suite by the name of the entry in its file."""
    found: dict[str, Grid] = {}
    for name, entry in methods.items():
        if entry.grid:
            point = {key: value for key, (value,) in entry.grid.items()}
            grid = found.setdefault(name.removesuffix(_place("", point)), Grid({key: [] for key in point}, []))
            grid.entries.append(name)
            for key, value in point.items():
                if value not in grid.axes[key]:
                    grid.axes[key].append(value)
    return found


def point_label(grid: Mapping[str, Any]) -> str:
    """Return the words of a title for a combination of values: `, width 8, l1 10`; empty without a grid."""
    return "".join(f", {label(key, value)}" for key, (value,) in grid.items())


def label(key: str, value: Any) -> str:
    """Return a key with one of its values, as tables print them."""
    return f"{words(key)} {_text(value)}"


def words(key: str) -> str:
    """Return a key of a grid as tables print it."""
    return key.removeprefix(_TRAINING).replace("_", " ")


def _place(name: str, point: Mapping[str, Any]) -> str:
    parts = [part for key, value in point.items() for part in (key.removeprefix(_TRAINING), _text(value))]
    return "_".join([name, *(re.sub(r"[^a-z0-9]+", "_", part.lower()) for part in parts)])


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _section(key: str) -> tuple[str, str]:
    """Return the section of an entry that a key of a grid belongs to, and its name there."""
    return "training" if key.startswith(_TRAINING) else "options", key.removeprefix(_TRAINING)


def _at(entry: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    sections = {"training": {}, "options": {}}
    for key, value in point.items():
        section, word = _section(key)
        sections[section][word] = value
    result = {**entry, "grid": {key: [value] for key, value in point.items()}}
    for section, values in sections.items():
        before = entry.get(section) or {}
        # Anything else than a mapping is left for the validation.
        if values and isinstance(before, dict):
            result[section] = {**before, **values}
    return result
