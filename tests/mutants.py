"""Mutation testing, by `make mutants`: small changes of the code, each tried against the tests nearest to it.

cosmic-ray makes the mutants; this file draws, runs and judges them. They are run on a copy of the project in
build/mutants, each in a fork of a process that has already imported torch and the like, which takes a tenth of the time
of a process of its own. Of the tests that `mutants.toml` names for a module, those that execute the changed line are
run, the fastest first.
"""

import argparse
import ast
import gc
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "mutants"
# They change a number, a comparison, an operator or a branch; no texts. One change for each operator is enough.
OPERATORS = re.compile(
    "core/(NumberReplacer|AddNot|ReplaceTrueWithFalse|ReplaceFalseWithTrue|ReplaceAndWithOr|ReplaceOrWithAnd"
    "|ReplaceContinueWithBreak|ReplaceBreakWithContinue|ZeroIterationForLoop"
    "|ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_Mul|Pow_Mul|BitOr_BitAnd|BitAnd_BitOr"
    "|RShift_LShift|LShift_RShift)"
    "|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Is_IsNot|IsNot_Is)"
    "|ReplaceUnaryOperator_(USub_UAdd|Delete_Not|Delete_Invert))"
)
# Imported once, before the forks; nothing of the project, since each fork imports the changed module.
IMPORTS = ["filelock", "matplotlib.pyplot", "pandas", "piq", "pydantic", "requests", "scipy.stats", "seaborn"]
IMPORTS += ["skimage.metrics", "tensorboard.summary", "torch._dynamo", "torchvision", "tqdm"]


class Mutant(NamedTuple):
    """A changed module: its text, the number of the changed line, and this line before and after."""

    text: str
    line: int
    before: str
    after: str

    def key(self) -> tuple[str, str]:
        """Return what identifies it, wherever the line stands."""
        return "".join(self.before.split()), "".join(self.after.split())


def mutants(text: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, except of annotations, decorators, the messages of errors and zip's `strict`."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    left_out = [span for node in ast.walk(ast.parse(text)) for span in _left_out(node)]
    nodes = list(ast_nodes(get_ast(text)))
    for name in filter(OPERATORS.fullmatch, operator_names()):
        operator = get_operator(name)()
        places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for number, start in enumerate(places):
            changed = mutate_code(text, operator, number)
            if any(low <= start < high for low, high in left_out) or not _compiles(changed):
                continue
            pairs = enumerate(zip(text.splitlines(), changed.splitlines(), strict=True), 1)
            line, (before, after) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
            yield Mutant(changed, line, before.strip(), after.strip())


def _left_out(node: ast.AST) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    parts = [getattr(node, "annotation", None), getattr(node, "returns", None), *getattr(node, "decorator_list", ())]
    parts += [node] if isinstance(node, ast.Raise) else []
    # That sequences have one length is checked where it cannot be otherwise.
    parts += [keyword.value for keyword in getattr(node, "keywords", ()) if keyword.arg == "strict"]
    return [((p.lineno, p.col_offset), (p.end_lineno, p.end_col_offset)) for p in parts if isinstance(p, ast.AST)]


def _compiles(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


class Watch:
    """A plugin of pytest that notes, for each line of a module, the tests that execute it, and their durations.

    What a fixture that several tests share executes counts for each of them.
    """

    def __init__(self, module: str) -> None:
        from coverage import Coverage

        self._module = module
        self._coverage = Coverage(data_file=None, include=[module])
        self._seconds: dict[str, float] = {}
        self._fixtures: dict[str, list[str]] = {}
        self._failed: list[str] = []
        self._name = ""

    def pytest_sessionstart(self) -> None:
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._fixtures[item.nodeid] = item.fixturenames
        start = time.monotonic()
        with self._as(item.nodeid):
            result = yield
        self._seconds[item.nodeid] = time.monotonic() - start
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
        with self._as(fixturedef.argname if fixturedef.scope != "function" else None):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed += [report.nodeid] if report.failed else []

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        lines = {}
        for line, names in self._coverage.get_data().contexts_by_lineno(str(Path(self._module).resolve())).items():
            lines[line] = [t for t, used in self._fixtures.items() if t in names or {*names} & {*used}]
        found = {"seconds": self._seconds, "failed": self._failed, "lines": lines}
        (WORK / "watched.json").write_text(json.dumps(found))

    @contextmanager
    def _as(self, name: str | None) -> Iterator[None]:
        outer = self._name
        self._name = name or outer
        self._coverage.switch_context(self._name)
        yield
        self._name = outer
        self._coverage.switch_context(outer)


def fork(arguments: Sequence[str], plugins: Sequence[object], seconds: float) -> tuple[int | None, str]:
    """Run pytest in a fork of this process; return its status, or None if it took too long, and its output."""
    log = WORK / "log.txt"
    child = os.fork()
    if not child:
        status = 70
        try:
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            # A mutant may fill memory or disk.
            resource.setrlimit(resource.RLIMIT_AS, (16 << 30,) * 2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30,) * 2)
            status = pytest.main(["-q", "-p", "no:cacheprovider", "--basetemp", f"{WORK}/tmp", *arguments], plugins)
        finally:
            os._exit(int(status))
    end = time.monotonic() + seconds
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not ended[0]:
        os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(ended[1]) if ended[0] else None
    return status, log.read_text(errors="replace")


def copy_project() -> None:
    """Copy the project's files, as they are now, to build/mutants, and make the copy the current folder."""
    tree = WORK / "tree"
    shutil.rmtree(WORK, ignore_errors=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    os.chdir(tree)
    os.environ.update(PYTHONPATH=str(tree), OMP_NUM_THREADS="1", MPLBACKEND="agg")
    sys.path[0] = str(tree)


class Module:
    """A module with the tests that are tried on its mutants."""

    def __init__(self, name: str, tests: Sequence[str]) -> None:
        self.name, self.text, self._stat = name, Path(name).read_text(), Path(name).stat()
        sys.dont_write_bytecode = False
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        _, output = fork(tests, [Watch(name)], 3600)
        found = json.loads((WORK / "watched.json").read_text())
        self._seconds, self._lines = found["seconds"], found["lines"]
        for test in found["failed"]:
            print(f"Left out, since it fails without a change: {test}\n{output[-2000:]}")
            self._seconds.pop(test, None)
        if not self._seconds:
            raise SystemExit(f"{name}: no test passes without a change:\n{output[-2000:]}")
        self._around = _statements(self.text)
        # The mutants have the original's compiled files beside them, and must leave none.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

    def tests(self, line: int) -> list[str]:
        """Return the tests that execute a line, the fastest first; of one that the import executes, all."""
        names = {*self._seconds}
        if line in self._around:
            names &= {test for part in self._around[line] for test in self._lines.get(str(part), ())}
        return sorted(names, key=self._seconds.get)

    def noticed(self, mutant: Mutant) -> str:
        """Return the test that fails with a mutant, or another reason, or an empty string."""
        tests = self.tests(mutant.line)
        if not tests:
            return ""
        Path(self.name).write_text(mutant.text)
        try:
            status, output = fork(["-x", *tests], [], 20 + 3 * sum(map(self._seconds.get, tests)))
        finally:
            Path(self.name).write_text(self.text)
            os.utime(self.name, ns=(self._stat.st_atime_ns, self._stat.st_mtime_ns))
        failed = re.search(r"^(?:FAILED|ERROR) (?:\S+::)?(\S+)", output, re.M)
        return "" if status == 0 else "time" if status is None else failed[1] if failed else f"status {status}"


def _statements(text: str) -> dict[int, range]:
    """Return for each line in a function the lines of the innermost statement, or of its head if it has a body."""
    found: dict[int, range] = {}
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    for node in (node for function in functions for part in function.body for node in ast.walk(part)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            lines = range(node.lineno, max(node.lineno, body[0].lineno - 1) + 1 if body else node.end_lineno + 1)
            found |= dict.fromkeys(lines, lines)
    return found


def judge(module: Module, known: Mapping[tuple[str, str], str], sample: int) -> dict[str, int]:
    """Try mutants of a module, print each with its verdict, and return counts."""
    start = time.monotonic()
    every = list(mutants(module.text))
    drawn = random.Random(0).sample(every, sample) if 0 < sample < len(every) else every
    counts = {"mutants": len(every), "tried": len(drawn), "noticed": 0, "equivalent": 0, "accepted": 0, "new": 0}
    for mutant in sorted(drawn, key=lambda mutant: mutant.line):
        by, reason = module.noticed(mutant), known.get(mutant.key(), "")
        kind = "noticed" if by else reason.partition(":")[0] or "new"
        counts[kind] += 1
        print(f"{module.name}:{mutant.line}: {kind} {by and f'by {by}'}", flush=True)
        print(f"    {json.dumps([mutant.before, mutant.after], ensure_ascii=False)}", flush=True)
    counts["seconds"] = round(time.monotonic() - start)
    return counts


def main() -> int:
    """Run the mutants of the chosen modules; return 1 if one that `mutants.toml` does not list was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="parts of modules' paths; default: all of mutants.toml")
    parser.add_argument("--sample", type=int, default=40, help="mutants drawn of each module, 0: all (default: 40)")
    options = parser.parse_args()
    # Behind the project's environment, whose versions the tests need.
    sys.path += map(str, ROOT.glob(".venv-mutants/lib/python*/site-packages"))
    copy_project()
    settings = tomllib.loads(Path("tests/mutants.toml").read_text())
    for name in IMPORTS:
        importlib.import_module(name)
    gc.freeze()
    rows = {}
    for name, tests in settings["tests"].items():
        if not options.modules or any(part in name for part in options.modules):
            listed = settings["known"].get(name, [])
            known = {Mutant("", 0, before, after).key(): reason for before, after, reason in listed}
            rows[name] = judge(Module(name, tests), known, options.sample)
    heads = ("mutants", "tried", "noticed", "equivalent", "accepted", "new", "seconds")
    print(f"\n| module | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name, row in rows.items():
        print(f"| `{name}` | {' | '.join(str(row[head]) for head in heads)} |")
    return int(any(row["new"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
