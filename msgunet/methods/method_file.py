"""A user's own methods: a Python file outside the package, named in a suite, that registers them.

Its `code` is a hash of its syntax tree and of those of the modules beside it that it imports, so that comments,
docstrings and layout do not count and everything else does.
"""

import ast
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from msgunet.core.errors import UserError
from msgunet.core.files import short_hash
from msgunet.methods.method import Method, MethodOptions

# What each loaded file registers, by the name of its module: `register_method` writes here.
TABLES: dict[str, dict[str, type[Method]]] = {}

# The project's own code is no part of a method's: `version` of the methods and the commit stand for it.
_PACKAGES = ("msgunet", "baselines")


@dataclass(frozen=True)
class MethodFile:
    """What a file registers, by name, and the hash of its code."""

    methods: dict[str, type[Method]]
    code: str


_loaded: dict[Path, MethodFile] = {}


def load_method_file(file: str, code: str | None = None, again: bool = False) -> MethodFile:
    """Load a file with methods, once in a process.

    Args:
        file: its path, from the working folder.
        code: that it must have.
        again: look at it again, for what has been edited since.

    Raises:
        UserError: there is no such file, it cannot be loaded, what it registers is no method, or its code is another.

    """
    path = Path(file).expanduser().resolve()
    found = _loaded.get(path)
    if found is None or again or code not in (None, found.code):
        found = _load(file, path)
    if code not in (None, found.code):
        raise UserError(f"{file} has changed since the suite was planned; start snakemake again")
    return found


def _load(file: str, path: Path) -> MethodFile:
    if not path.is_file():
        raise UserError(f"there is no file {file}" + ("" if Path(file).is_absolute() else f" in {Path.cwd()}"))
    trees = _trees(path)
    named = (f"{source.relative_to(path.parent)}\n{_plain(tree)}" for source, tree in trees.items() if source != path)
    code = short_hash("\n".join([_plain(trees[path]), *sorted(named)]))
    known = _loaded.get(path)
    if known is not None and known.code == code:
        return known
    beside = {source.relative_to(path.parent).parts[0].removesuffix(".py") for source in trees if source != path}
    if known is not None:
        _forget(beside, path.parent)
    # At the end, so that no file beside it takes the place of a package.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    methods = _run(file, path, trees[path])
    for name in sorted(beside):
        if name in sys.modules and not _is_beside(name, path.parent):
            raise UserError(f"{file} imports '{name}', a name that is taken by another module: rename {name}.py")
    _loaded[path] = MethodFile(methods, code)
    return _loaded[path]


def _run(file: str, path: Path, tree: ast.Module) -> dict[str, type[Method]]:
    """Run a file as a module of its own; returns what it registers."""
    # Not under the file's name, which may be that of another module.
    name = f"method_file_{path.stem}_{short_hash(str(path))}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    before = sys.modules.get(name), TABLES.get(name)
    sys.modules[name], TABLES[name] = module, {}
    try:
        exec(compile(tree, str(path), "exec"), vars(module))  # noqa: S102 (it is what the user asks for)
        for cls in TABLES[name].values():
            _check(cls)
    except (Exception, SystemExit) as error:
        for table, old in zip((sys.modules, TABLES), before, strict=True):
            table.pop(name) if old is None else table.update({name: old})
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        text = " ".join(str(error).split())
        if isinstance(error, UserError):
            raise UserError(f"{file}: {text}") from error
        raise UserError(f"{file}:{lines[-1] if lines else 1}: {type(error).__name__}: {text}") from error
    if not TABLES[name]:
        raise UserError(f'{file} registers no method: one is a class under @register_method("name")')
    return TABLES[name]


def _check(cls: Any) -> None:
    """What would go wrong later on."""
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise UserError(f"what is registered as '{cls.name}' is no subclass of msgunet.Method")
    if not isinstance(getattr(cls, "title", None), str):
        raise UserError(f"method '{cls.name}' has no title, by which tables call it")
    if not issubclass(cls.Options, MethodOptions):
        raise UserError(f"the Options of method '{cls.name}' are no subclass of msgunet.MethodOptions")
    try:
        cls.Options()
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise UserError(f"options of method '{cls.name}' need a default that is valid: {wrong}") from error


def _trees(path: Path) -> dict[Path, ast.Module]:
    """The syntax trees of a file, of the modules beside it that it imports, and of what those import there."""
    found: dict[Path, ast.Module] = {}
    left = [path]
    while left:
        source = left.pop()
        if source in found:
            continue
        try:
            found[source] = ast.parse(source.read_bytes())
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            raise UserError(f"{source}:{line}: {getattr(error, 'msg', error)}") from error
        except OSError as error:
            raise UserError(f"{source}: {error.strerror}") from error
        for name in {name.split(".")[0] for name in _imported(found[source])}.difference(("", *_PACKAGES)):
            modules = [path.parent / f"{name}.py", *sorted((path.parent / name).rglob("*.py"))]
            left += [module for module in modules if module.is_file()]
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "id", getattr(node.func, "attr", None))
            if called in ("lazy_import", "import_module"):
                yield str(node.args[0].value)


def _plain(node: Any) -> str:
    """A syntax tree as text, without docstrings and without the empty fields that `ast.dump` of some Pythons shows."""
    if isinstance(node, list):
        return f"[{', '.join(map(_plain, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    said = (f"{name}={_plain(value)}" for name, value in fields.items() if value is not None and value != [])
    return f"{type(node).__name__}({', '.join(said)})"


def _is_beside(name: str, folder: Path) -> bool:
    """Whether an imported module lies in a folder; asked without loading one that is imported lazily."""
    spec = object.__getattribute__(sys.modules[name], "__spec__")
    if spec is None or spec.origin is None:
        return spec is not None
    return Path(spec.origin) in (folder / f"{name}.py", folder / name / "__init__.py")


def _forget(names: set[str], folder: Path) -> None:
    """Let modules beside a file that has changed be imported again."""
    for name in names:
        if name in sys.modules and _is_beside(name, folder):
            for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
                del sys.modules[module]
