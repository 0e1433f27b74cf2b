"""References generated from the code, in Markdown: every key of a suite, and every verb of the command."""

import argparse
import inspect
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from msgunet.cli.parser import parser
from msgunet.core.settings import Name
from msgunet.data.base import DataSet
from msgunet.data.registry import datasets
from msgunet.methods.method import Method
from msgunet.methods.registry import methods
from msgunet.suite.models import Suite

# The paper's sizes, at which the recipes and strides of methods are listed.
_SIZES = ((256, 256), (512, 512), (2048, 1024))
_COUNTS = {2: "two", 3: "three", 4: "four"}
_WIDTH = 100


def suite_reference() -> str:
    """Return the reference of every key of a suite, and of the options of every method and data set."""
    parts = [_section("## The suite", Suite)]
    for key, field in Suite.model_fields.items():
        model = _model_in(field.annotation)
        if model is not None:
            title = f"{key}.NAME" if get_origin(field.annotation) is dict else key
            parts.append(_section(f"## `{title}` {{ #{key} }}", model))
    parts.append("## Options of methods\n\nUnder `methods.NAME.options`.")
    parts += [_method(cls) for cls in sorted(methods().values(), key=lambda cls: not cls.trainable)]
    parts.append("## Options of data sets\n\nUnder `datasets.NAME.options`.")
    parts += [_dataset(cls) for cls in datasets().values()]
    return "\n\n".join(parts) + "\n"


def _section(heading: str, model: type[BaseModel]) -> str:
    return f"{heading}\n\n{_first_sentence(model)}\n\n{_fields(model)}"


def _method(cls: type[Method]) -> str:
    options = cls.Options()
    lines = [f"### {cls.title} (`{cls.name}`) {{ #method-{cls.name} }}", f"{cls.reference}." if cls.reference else ""]
    if cls.trainable:
        recipes = _by_size(lambda size: _yaml(cls.recipe(options, size)), cls)
        strides = _by_size(lambda size: str(cls.stride(options, size)), cls)
        lines += [
            f"Recipe, where it differs from the defaults of [training](#training): {recipes}.",
            f"With the default options, both sides of an image must be multiples of {strides}.",
        ]
    lines.append(_fields(cls.Options))
    return "\n\n".join(filter(None, lines))


def _by_size(value: Any, cls: type[Method]) -> str:
    """List a value at the paper's sizes, each value once: `8` at 256×256 and 512×512; `32` at 2048×1024."""
    sizes: dict[str, list[str]] = {}
    for size in _SIZES:
        if cls.problem(cls.Options(), size) is None:
            sizes.setdefault(value(size), []).append("{}×{}".format(*size))
    if len(sizes) == 1:
        return f"`{next(iter(sizes))}`"
    return "; ".join(f"`{text}` at {' and '.join(at)}" for text, at in sizes.items())


def _dataset(cls: type[DataSet]) -> str:
    source, target = cls.kinds(cls.Options.model_construct())
    lines = [
        f"### {cls.title} (`{cls.name}`) {{ #data-set-{cls.name} }}",
        _first_sentence(cls),
        f"From {cls.source_url}. Source: {source}, target: {target}. Licence: {cls.licence}.",
        _fields(cls.Options),
    ]
    return "\n\n".join(lines)


def _fields(model: type[BaseModel]) -> str:
    if not model.model_fields:
        return "No options."
    return _table(("key", "value", "default", "meaning"), list(_rows(model)))


def _rows(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, ...]]:
    """Yield one row per key. Nested keys without a separate section follow the key that holds them."""
    for key, field in model.model_fields.items():
        yield f"`{above}{key}`", _type_text(field.annotation, field.metadata), _default(field), _meaning(field)
        inner = _model_in(field.annotation)
        if inner is not None and _key_of(inner) is None:
            yield from _rows(inner, f"{above}{key}.")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _meaning(field: FieldInfo) -> str:
    model = _model_in(field.annotation)
    if field.description or model is None:
        return field.description or ""
    text = _first_sentence(model).rstrip(".")
    return text[0].lower() + text[1:]


def _first_sentence(cls: type) -> str:
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "`{}`"
    return "–" if value is None else f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """Format a value as it is written in a suite."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for model in map(_model_in, get_args(annotation)) if model), None)


def _type_text(annotation: Any, metadata: Any = (), plural: bool = False) -> str:
    """Describe a type in plain English: `whole number, 1 or more`, `list of names`."""
    # In lists, limits are wrapped in another FieldInfo.
    metadata = [limit for item in metadata for limit in (item.metadata if isinstance(item, FieldInfo) else [item])]
    if annotation == Name or any(getattr(item, "pattern", None) for item in metadata):
        return "names" if plural else "name"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(inner[0], annotation.__metadata__, plural)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_text(part, metadata, plural) for part in inner if part is not type(None))
    if origin is Literal:
        values = ", ".join(f"`{value}`" for value in inner)
        return f"any of {values}" if plural else f"one of {values}"
    if origin is tuple:
        return _list(inner)
    if origin is dict:
        return _dictionary(inner[1])
    if _model_in(annotation) is annotation:
        return _linked("keys", annotation)
    if annotation is bool:
        return "`true` or `false`"
    if annotation in (int, float):
        noun = ("whole number" if annotation is int else "number") + "s" * plural
        return noun + _range(metadata, annotation is int)
    longest = next((f" of up to {item.max_length} characters" for item in metadata if hasattr(item, "max_length")), "")
    return ("text" if annotation is str else annotation.__name__.lower()) + "s" * plural + longest


def _list(inner: tuple[Any, ...]) -> str:
    if inner[-1] is Ellipsis:
        elements = _type_text(inner[0], plural=True)
        return f"list, {elements}" if elements.startswith("any of") else f"list of {elements}"
    return f"list of {_COUNTS[len(inner)]} {_type_text(inner[0], plural=True)}"


def _dictionary(value: Any) -> str:
    model = _model_in(value)
    if model is not None:
        return f"{_linked('entries', model)} by name"
    if value is Any:
        return "keys and values"
    return f"{_type_text(value)} by name"


def _linked(text: str, model: type[BaseModel]) -> str:
    key = _key_of(model)
    return f"[{text}](#{key})" if key else text


def _key_of(model: type[BaseModel]) -> str | None:
    """Return the key of the suite that holds these settings; it is also the anchor of its section."""
    keys = (key for key, field in Suite.model_fields.items() if _model_in(field.annotation) is model)
    return next(keys, None)


def _range(metadata: Any, whole: bool) -> str:
    """Describe the limits of a number: ` from 1 to 32`, `, 1 or more`."""
    names = ("ge", "gt", "le", "lt")
    limits = {name: getattr(item, name) for item in metadata for name in names if hasattr(item, name)}
    if whole:
        # A whole number below 16 is at most 15.
        limits |= {"le": limits.pop("lt") - 1} if "lt" in limits else {}
        limits |= {"ge": limits.pop("gt") + 1} if "gt" in limits else {}
    low, high = limits.get("ge"), limits.get("le")
    if low is not None and high is not None:
        return f" from {low:.15g} to {high:.15g}"
    parts = [
        *([f"{low:.15g} or more"] if low is not None else []),
        *([f"above {limits['gt']:g}"] if "gt" in limits else []),
        *([f"up to {high:.15g}"] if high is not None else []),
        *([f"below {limits['lt']:g}"] if "lt" in limits else []),
    ]
    return f", {', '.join(parts)}" if parts else ""


def command_reference() -> str:
    """Return the reference of every verb of `msgunet`, with its options."""
    top = parser()
    verbs = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    # The epilog has examples, which argparse prints unchanged.
    parts = [f"```\n{(top.epilog or '').strip()}\n```"]
    parts += [_verb(name, sub) for name, sub in verbs.choices.items()]
    return "\n\n".join(parts) + "\n"


def _verb(name: str, sub: argparse.ArgumentParser) -> str:
    sub.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=_WIDTH)
    usage = re.sub(r"\n\s+", "\n    ", sub.format_usage().removeprefix("usage: ").replace("[-h] ", "").strip())
    rows = [
        (_invocation(action), action.help or "")
        for action in sub._actions
        if not isinstance(action, argparse._HelpAction)
    ]
    return f"## {name}\n\n{sub.description}\n\n```\n{usage}\n```\n\n{_table(('argument', 'meaning'), rows)}"


def _invocation(action: argparse.Action) -> str:
    """Format an argument as it is written on the command line: `--size WIDTH HEIGHT`."""
    named = action.dest.upper() if action.option_strings else action.dest
    metavar = action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else named)
    values = [metavar] * (action.nargs if isinstance(action.nargs, int) else 1)
    text = " ".join(metavar if isinstance(metavar, tuple) else values)
    more = " …" if action.nargs in ("+", "*") else ""
    if not action.option_strings:
        return f"`{text}{more}`"
    return f"`{' '.join([*action.option_strings, *([] if action.nargs == 0 else [text + more])])}`"
