"""Read a suite's YAML file: find it by name, parse it strictly, and report all its problems together."""

import re
import shlex
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from msgunet.core.bugs import MethodBug
from msgunet.core.checkout import ROOT, repository_file
from msgunet.core.errors import UserError
from msgunet.core.registry import suggest
from msgunet.core.settings import TrainingSettings
from msgunet.core.text import control_problem
from msgunet.data.registry import datasets, remote_files
from msgunet.methods.method import MethodOptions
from msgunet.methods.method_file import trust, without_options
from msgunet.methods.registry import custom_methods, methods
from msgunet.suite.grid import expand, in_grids, suggest_entry
from msgunet.suite.messages import validated
from msgunet.suite.models import Suite
from msgunet.suite.record import RECORD, copies_for, read_shared


class SuiteLoader(yaml.SafeLoader):
    """A YAML loader that reads `1e-4` as a number and rejects duplicate keys. Blocks (`|`, `>`) end with their text.

    With a merge key (`<<: *name`), keys of the mapping itself have priority, as always in YAML.
    """

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        text = super().construct_scalar(node)
        return text.rstrip("\n") if node.style in ("|", ">") else text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, yaml.Mark] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node)
            if not isinstance(key, Hashable):
                continue  # refused below
            if key in seen:
                first, second = seen[key].line + 1, key_node.start_mark.line + 1
                raise UserError(f"duplicate key '{key}' in line {second}; it is already in line {first}")
            seen[key] = key_node.start_mark
        return super().construct_mapping(node, deep)


SuiteLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def suite_path(name: str) -> Path:
    """Return the path of a suite file: `config/NAME.yaml`, or `name` itself if it ends in .yaml or .yml."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
    else:
        named = re.fullmatch(r"[a-z0-9_]{1,64}", name)
        if not (named and (repository_file("config") / f"{name}.yaml").is_file()) and (Path(name) / RECORD).is_file():
            suite = Path(name) / f"{read_shared(Path(name)).suite}.yaml"
            raise UserError(
                f"{name} is a folder of shared results; your own results of its suite are those of {suite}, its tables "
                f"are in {Path(name) / 'tables'}, and 'msgunet verify {shlex.quote(name)}' compares both"
            )
        if not named:
            raise UserError(
                f"suite '{name}': a suite's name has only a-z, 0-9 and _; otherwise pass the path of a .yaml file"
            )
        path = repository_file("config") / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in ROOT.joinpath("config").glob("*.yaml"))
        hint = f": {suggest(name, known)}" if known else ""
        raise UserError(f"there is no suite file {path}{hint}")
    return path


def load_suite(path: Path) -> Suite:
    """Parse and validate a suite file.

    Raises:
        UserError: the file has problems; each is listed with its place in the file and the closest valid name. Errors
            in the code of custom methods come first, once for each.

    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), SuiteLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    problems: list[str] = []
    expanded: dict[str, Any] = {}
    grids: dict[str, list[str]] = {}
    if isinstance(raw, dict) and isinstance(methods := raw.get("methods"), dict):
        expanded, grids, problems = expand(methods)
        raw = {**raw, "methods": expanded}
    found, suite = validated(Suite, raw if raw is not None else {}, "")
    entry_problems, bugs = _entry_problems(raw, grids) if isinstance(raw, dict) else ([], [])
    problems += _together(in_grids([*found, *entry_problems], expanded, grids))
    problems += _text_problems(raw)
    if problems or bugs or suite is None:
        lines = dict.fromkeys([*map(str, bugs), *(f"{path}: {problem}" for problem in problems), *copies_for(path)])
        raise UserError(*lines, trace="\n".join(dict.fromkeys(bug.trace for bug in bugs if bug.trace)))
    return suite


def _together(problems: Iterable[str]) -> list[str]:
    """Return each problem once; what is wrong with a file that several entries name, once for all of them."""
    places: dict[str, list[str]] = {}
    for problem in dict.fromkeys(problems):
        entry, of_file, text = problem.partition(".file: ")
        places.setdefault(text if of_file else problem, []).extend([f"{entry}.file"] if of_file else [])
    return [f"{', '.join(entries)}: {text}" if entries else text for text, entries in places.items()]


def _text_problems(raw: Any) -> list[str]:
    """Return the problems with control characters in keys and texts: reports and messages show all of them."""
    problems, seen, pending = [], set(), [("", raw)]
    while pending:
        place, value = pending.pop()
        if isinstance(value, str):
            problems += [f"{place}: {problem}"] if (problem := control_problem(value)) else []
        # An alias can name its own list.
        elif isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            inner = [(f"{place}.{key}".lstrip("."), key, one) for key, one in items]
            pending += [(f"the key {where}", key) for where, key, _ in inner if isinstance(value, dict)]
            pending += [(where, one) for where, _, one in inner]
    return problems[::-1]


def _entry_problems(raw: dict[str, Any], grids: Mapping[str, list[str]]) -> tuple[list[str], list[MethodBug]]:
    """Return the problems with names and options, entry by entry, and the errors in the code of custom methods.

    Works on the raw file, so that these are reported together with the problems that pydantic finds.
    """
    problems: list[str] = []
    bugs: list[MethodBug] = []

    def table(key: str) -> dict[str, Any]:
        value = raw.get(key)
        return value if isinstance(value, dict) else {}

    def names(value: Any) -> list[str]:
        """Return the names in a list; pydantic reports anything that is not a list of names."""
        return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []

    untrained: set[str] = set()
    for key, field, registered in (
        ("datasets", "kind", datasets()),
        ("methods", "method", methods()),
    ):
        for name, raw_entry in table(key).items():
            entry = raw_entry if isinstance(raw_entry, dict) else {}
            kind = entry.get(field) or name
            if not isinstance(kind, str):
                continue
            known, file = registered, entry.get("file") if key == "methods" else None
            if file and isinstance(file, str):
                try:
                    trust(file)
                    known = custom_methods(file, reload=True).methods
                except MethodBug as bug:
                    bugs.append(bug if bug.method else bug.of(kind))
                    continue
                except UserError as error:
                    problems += [f"{key}.{name}.file: {problem}" for problem in error.problems]
                    continue
                if kind not in known:
                    available = ", ".join(f"'{other}'" for other in known)
                    problems.append(f"{key}.{name}.file: {file} registers no method '{kind}', only {available}")
                    continue
            if kind not in known:
                problems.append(f"{key}.{name}: unknown {field} '{kind}'; {suggest(kind, known)}")
                continue
            if key == "methods" and not known[kind].trainable:
                untrained.add(name)
            options = entry.get("options")
            if isinstance(entry.get("grid"), dict) and isinstance(options, dict):
                section = set(TrainingSettings.model_fields) - set(known[kind].Options.model_fields)
                problems += [
                    f"{key}.{name}.grid: '{word}' is a setting of the training; write training.{word}"
                    for word in entry["grid"]
                    if word in section
                ]
            place = f"{key}.{name}"
            if options and file and known[kind].Options is MethodOptions:
                problems.append(f"{place}.options: {without_options(known[kind], file)}")
            else:
                problems += validated(known[kind].Options, options or {}, f"{place}.options")[0]
            problems += _unknown(names(entry.get("datasets")), table("datasets"), f"{place}.datasets", "data set")
    data = table("data")
    if isinstance(data.get("mirror"), dict):
        problems += _unknown(data["mirror"], datasets(), "data.mirror", "kind of data set")
    if isinstance(data.get("urls"), dict):
        problems += _unknown(data["urls"], dict.fromkeys(remote_files()), "data.urls", "published file")
    gradients = table("gradients")
    trained = [gradients.get("method") or "msgunet"] if gradients else []
    reference = table("comparison").get("reference")
    for place, given in (
        ("ablation.methods", table("ablation").get("methods")),
        ("gradients.method", trained),
        ("comparison.reference", [reference]),
    ):
        problems += [
            f"{place}: there is no method entry '{name}'; {suggest_entry(name, table('methods'), grids)}"
            for name in names(given)
            if name not in table("methods")
        ]
    problems += _unknown(names([gradients.get("dataset")]), table("datasets"), "gradients.dataset", "data set")
    if isinstance(reference, str) and reference in table("methods"):
        entries = {name: entry if isinstance(entry, dict) else {} for name, entry in table("methods").items()}
        trained_on = {
            name: [*table("datasets")] if entry.get("datasets") is None else names(entry["datasets"])
            for name, entry in entries.items()
            if name not in untrained
        }
        problems += _reference_problems(reference, trained_on)
    return problems, bugs


def _reference_problems(reference: str, trained_on: Mapping[str, list[str]]) -> list[str]:
    """Return why the other entries cannot be compared with this one; `trained_on`: data sets of each trained entry."""
    others = [name for name, on in trained_on.items() if on and name != reference]
    place = "comparison.reference"
    if reference not in trained_on:
        choice = f"; name one that is: {', '.join(others)}" if others else ", and no other entry is"
        return [f"{place}: '{reference}' is not trained{choice}"]
    if not others:
        return [f"{place}: '{reference}' is the only trained entry; there is none to compare with it"]
    missing = dict.fromkeys(data for name in others for data in trained_on[name] if data not in trained_on[reference])
    if missing:
        return [
            f"{place}: '{reference}' does not run on {', '.join(missing)}, as other entries do; let it run "
            "there, too, or name an entry that runs on all their data sets"
        ]
    return []


def _unknown(given: Iterable[str], known: dict[str, Any], place: str, noun: str) -> list[str]:
    return [f"{place}: there is no {noun} '{name}'; {suggest(name, known)}" for name in given if name not in known]


def suite_from_config(config: dict[str, Any]) -> str:
    """Return the suite named by Snakemake's `--config`.

    Any other key is an error: a typo must not silently run the paper's suite.
    """
    unknown = sorted(set(config) - {"suite"})
    if unknown:
        raise UserError(*(f"--config {key}: unknown key; did you mean 'suite'?" for key in unknown))
    return str(config.get("suite", "paper"))
