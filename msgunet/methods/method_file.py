"""Custom methods: a Python file outside the package that a suite names and that registers methods.

The `code` of a file is a hash of its syntax tree and of the trees of the sibling modules that it imports. Comments,
docstrings and layout do not change the hash; everything else does.

A file is executed only if the user named it, in a suite or with `--method` (see `trust`). Settings in a weights file or
among results name a file too, but whoever made them is not the user.
"""

import ast
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from msgunet.core.bugs import MethodBug, add_sources, load_bug
from msgunet.core.errors import UserError
from msgunet.core.files import short_hash
from msgunet.core.permissions import explain
from msgunet.methods.method import Method, MethodOptions

# The methods that each loaded file registers, by module name. `register_method` writes here.
REGISTERED: dict[str, dict[str, type[Method]]] = {}

# The hash excludes the project's own code, which the methods' `version` and the commit identify.
_PACKAGES = ("msgunet", "baselines")


@dataclass(frozen=True)
class MethodFile:
    """The methods that a file registers, by name, and the hash of its code."""

    methods: dict[str, type[Method]]
    code: str


_loaded: dict[Path, MethodFile] = {}

# The trusted files, in an environment variable so that child processes inherit them.
_TRUSTED = "MSGUNET_TRUSTED_METHODS"


def trust(file: Path | str) -> None:
    """Allow the code of a file to be executed in this process and its children: the user named the file."""
    os.environ[_TRUSTED] = json.dumps(sorted({*_trusted(), str(_resolved(file))}))


def is_trusted(file: Path | str) -> bool:
    """Return whether the user named this file."""
    try:
        return str(_resolved(file)) in _trusted()
    except UserError:  # not a path
        return False


def _trusted() -> list[str]:
    return json.loads(os.environ.get(_TRUSTED, "[]"))


def _resolved(file: Path | str) -> Path:
    try:
        return Path(file).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{str(file)!r} is not a path: {error}") from error


def code_of(file: Path | str) -> str:
    """Return the hash of a file's code without executing it.

    Raises:
        UserError: the file does not exist or is not Python.

    """
    return _parse(str(file), _resolved(file))[1]


def source_files(file: Path | str) -> list[Path]:
    """Return the path of a file and of the sibling modules that it imports, directly or indirectly; it comes first.

    Raises:
        UserError: the file does not exist or is not Python.

    """
    path = _resolved(file)
    return [path, *sorted(_parse(str(file), path)[0].keys() - {path})]


def load_method_file(file: str, code: str | None = None, reload: bool = False) -> MethodFile:
    """Load a file with methods, once per process.

    Args:
        file: its path, relative to the working folder.
        code: the hash that its code must have; None accepts any.
        reload: read the file again, in case it was edited.

    Raises:
        UserError: the user has not named the file, it does not exist or cannot be loaded, an object it registers is not
            a method, or its code has a different hash. In the first and the last case nothing is executed.

    """
    path = _resolved(file)
    if not is_trusted(file):
        raise UserError(
            f"{file} contains a custom method and is named by a settings file only, so its code was not executed; if "
            f"you trust it, pass it yourself: --method {file}"
        )
    loaded = _loaded.get(path)
    if loaded is None or reload or code not in (None, loaded.code):
        loaded = _load(file, path, code)
    return loaded


def _parse(file: str, path: Path) -> tuple[dict[Path, ast.Module], str]:
    """Return the syntax trees of a file and its siblings, and the hash of all of them."""
    if not path.is_file():
        raise UserError(f"{file} does not exist" + ("" if Path(file).is_absolute() else f" in {Path.cwd()}"))
    trees = _syntax_trees(path)
    others = (f"{source.relative_to(path.parent)}\n{_dump(tree)}" for source, tree in trees.items() if source != path)
    return trees, short_hash("\n".join([_dump(trees[path]), *sorted(others)]))


def _load(file: str, path: Path, wanted: str | None) -> MethodFile:
    trees, code = _parse(file, path)
    if wanted not in (None, code):
        raise UserError(f"{file} has changed since the suite was planned; start snakemake again")
    previous = _loaded.get(path)
    if previous is not None and previous.code == code:
        return previous
    siblings = {source.relative_to(path.parent).parts[0].removesuffix(".py") for source in trees if source != path}
    if previous is not None:
        _unload(siblings, path.parent)
    # At the end, so that a sibling file cannot shadow a package.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    methods = _execute(file, path, trees)
    add_sources(trees, methods)
    for name in sorted(siblings):
        if name in sys.modules and not _is_sibling(name, path.parent):
            raise UserError(f"{file} imports '{name}', but another module already has this name; rename {name}.py")
    _loaded[path] = MethodFile(methods, code)
    return _loaded[path]


def _execute(file: str, path: Path, trees: dict[Path, ast.Module]) -> dict[str, type[Method]]:
    """Execute a file as a separate module and return the methods that it registers."""
    # Not under the file's own name, which another module can have.
    name = f"method_file_{path.stem}_{short_hash(str(path))}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    before = sys.modules.get(name), REGISTERED.get(name)
    sys.modules[name], REGISTERED[name] = module, {}
    try:
        exec(compile(trees[path], str(path), "exec"), vars(module))  # noqa: S102 (the user requested it)
        for cls in REGISTERED[name].values():
            _validate(cls)
            _require_methods(cls, file, trees[path])
    except (Exception, SystemExit) as error:
        for table, old in zip((sys.modules, REGISTERED), before, strict=True):
            table.pop(name) if old is None else table.update({name: old})
        if isinstance(error, MethodBug):
            raise
        if isinstance(error, UserError):
            raise UserError(f"{file}: {' '.join(str(error).split())}") from error
        hint = ""
        if isinstance(error, ImportError) and (error.name or "").split(".")[0] in _PACKAGES:
            hint = "; import the project's public names from 'msgunet' itself (docs/own-method.md)"
        raise load_bug(error, path, trees, hint) from error
    if not REGISTERED[name]:
        raise UserError(f'{file} registers no method; decorate a subclass of Method with @register_method("name")')
    return REGISTERED[name]


def _validate(cls: Any) -> None:
    """Raise UserError for mistakes that would fail only later."""
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise UserError(f"the object registered as '{cls.name}' is not a subclass of msgunet.Method")
    if not isinstance(getattr(cls, "title", None), str):
        raise UserError(f"method '{cls.name}' has no title; set `title` to its name in tables")
    if not issubclass(cls.Options, MethodOptions):
        raise UserError(f"the Options class of method '{cls.name}' is not a subclass of msgunet.MethodOptions")
    try:
        cls.Options()
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise UserError(f"all options of method '{cls.name}' need valid defaults; check {wrong}") from error


def without_options(cls: type[Method], file: str) -> str:
    """Return why a custom method has no options, and what to do: often, the class of the options is not named."""
    module = vars(sys.modules[cls.__module__]).values()
    near = [one.__name__ for one in module if isinstance(one, type) and issubclass(one, MethodOptions)]
    near = [name for name in near if name != MethodOptions.__name__] or ["Options"]
    return (
        f"the class {cls.__name__} in {file} names no options, so it has none; write 'Options = {near[0]}' in the "
        "class, where that is a subclass of msgunet.MethodOptions"
    )


def _require_methods(cls: type[Method], file: str, tree: ast.Module) -> None:
    """Raise MethodBug for methods that every method must define."""
    own = [name for name in vars(cls) if not hasattr(Method, name)]
    of_generator = ("build_generator", "generator_losses") if cls.trainable else ("build_generator",)
    of_discriminator = ("build_discriminator", "discriminator_losses") if cls.trainable else ()
    absent = [name for name in (*of_generator, *of_discriminator) if getattr(cls, name) is getattr(Method, name)]
    # A method without a discriminator has neither of its two, nor one by a mistyped name.
    without = all(name in absent and not get_close_matches(name, own, 1, 0.8) for name in of_discriminator)
    missing = [name for name in absent if name in of_generator or not without]
    if missing:
        nodes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
        line = next((node.lineno for node in nodes), 1)
        near = [f"'{found}' to be '{name}'" for name in missing for found in get_close_matches(name, own, 1, 0.8)]
        hint = f"; did you mean {' and '.join(near)}?" if near else ""
        text = f"class {cls.__name__} does not define {', '.join(missing)} (see docs/own-method.md){hint}"
        raise MethodBug(cls.name, f"{file}:{line}", text)


def _syntax_trees(path: Path) -> dict[Path, ast.Module]:
    """Return the syntax trees of a file and of the sibling modules that it imports, directly or indirectly."""
    trees: dict[Path, ast.Module] = {}
    remaining = [path]
    while remaining:
        source = remaining.pop()
        if source in trees:
            continue
        try:
            trees[source] = ast.parse(source.read_bytes(), str(source))
        except (SyntaxError, ValueError) as error:
            raise load_bug(error, source, [source]) from error
        except OSError as error:
            raise UserError(explain(error, source)) from error
        for name in {name.split(".")[0] for name in _imported(trees[source])}.difference(("", *_PACKAGES)):
            modules = [path.parent / f"{name}.py", *sorted((path.parent / name).rglob("*.py"))]
            remaining += [module for module in modules if module.is_file()]
    return trees


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the modules that a tree imports, also through `lazy_import` and `import_module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "id", getattr(node.func, "attr", None))
            if called in ("lazy_import", "import_module"):
                yield str(node.args[0].value)


def _dump(node: Any) -> str:
    """Return a syntax tree as text, without docstrings, and without empty fields, in which Python versions differ."""
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    items = (f"{name}={_dump(value)}" for name, value in fields.items() if value is not None and value != [])
    return f"{type(node).__name__}({', '.join(items)})"


def _is_sibling(name: str, folder: Path) -> bool:
    """Return whether an imported module is in a folder, without loading a lazy module."""
    spec = object.__getattribute__(sys.modules[name], "__spec__")
    if spec is None or spec.origin is None:
        return spec is not None
    return Path(spec.origin) in (folder / f"{name}.py", folder / name / "__init__.py")


def _unload(names: set[str], folder: Path) -> None:
    """Remove the siblings of a changed file from `sys.modules`, so that they are imported again."""
    for name in names:
        if name in sys.modules and _is_sibling(name, folder):
            for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
                del sys.modules[module]
