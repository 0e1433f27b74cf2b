"""What is wrong with a part of a suite's file, in the words of the file instead of pydantic's."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from msgunet.core.registry import suggest

# Keys that earlier versions called by another name.
_RENAMED = {"evaluation.measures": "evaluation.metrics"}

# What a key with a list looks like; for other keys, the example is made from the given value.
_LISTS = {
    "seeds": "[0, 1]",
    "size": "[256, 256]",
    "pairs": "[400, 50]",
    "range": "[0, 255]",
    "datasets": "[maps]",
    "metrics": "[psnr, ssim]",
    "protocols": "[native, full]",
}

# What each type of pydantic's errors expected.
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "literal_error": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "dict_type": "keys with values, as in 'key: value'",
}
# The longest value that a message shows.
_LONGEST = 80


def validated(model: type[BaseModel], raw: Any, place: str) -> tuple[list[str], Any]:
    """Return the problems of a part of a suite, each with its place in the file, and the part if there are none.

    Args:
        model: what the part must be.
        raw: the part as it was read.
        place: the key of the part, such as `methods.mine.options`; empty for the whole file.

    """
    try:
        return [], model.model_validate(raw)
    except ValidationError as error:
        return [_explained(model, one, place) for one in error.errors()], None


def _explained(model: type[BaseModel], error: Any, place: str) -> str:
    # Pydantic adds the type to the place of a value that may have one of several.
    loc = [str(part) for part in error["loc"] if part != "[key]" and not str(part).startswith(("dict[", "tuple["))]
    loc = loc[:-1] if error["type"] == "string_type" and loc[-1:] == ["str"] else loc
    where = ".".join([*([place] if place else []), *loc])
    if where in _RENAMED:
        return f"{where}: this key has been renamed to '{_RENAMED[where]}'"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; {suggest(loc[-1], _keys(_model_at(model, loc[:-1])))}"
    text = _in_words(error, _model_at(model, loc), loc)
    return f"{where}: {text}" if where else text


def _in_words(error: Any, model: Any, loc: list[str]) -> str:
    """Return what is wrong with one value; `model`: the section that it belongs to, or should be."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    given = f" (got {shown(value)})"
    if kind == "missing":
        return "this value is missing" if loc and loc[-1].isdecimal() else "this key is missing"
    if kind in ("tuple_type", "list_type"):
        name = next((part for part in reversed(loc) if part in _LISTS), None)
        example = "[10, 100]" if "grid" in loc[:-1] else _LISTS.get(name or "", f"[{shown(value)}]")
        return f"expected a list such as {example}{given}"
    if kind == "too_short":
        return "it is empty, but needs at least one value" if not value else f"it needs {context['min_length']} values"
    if kind == "too_long" and loc and loc[-1] == "grid":
        return f"a grid has at most two axes, but this one has {len(value)}: {', '.join(map(str, value))}"
    if kind == "too_long":
        return f"expected {context['max_length']} values, but there are {len(value)}{given}"
    if kind in ("model_type", "model_attributes_type"):
        return f"expected a section with keys: {', '.join(_keys(model))}{given}"
    if kind == "string_pattern_mismatch":
        return f"a name has at most 64 of the characters a-z, 0-9 and _{given}"
    if kind == "value_error":
        return f"{context['error']}{given if isinstance(value, str | int | float | None) else ''}"
    if kind in _EXPECTED:
        near = ""
        if kind == "literal_error" and isinstance(value, str):
            known = [word.strip("' ") for part in context["expected"].split(",") for word in part.split(" or ")]
            near = f"; {hint}" if (hint := suggest(value, known)).startswith("did") else ""
        limits = {key: f"{limit:g}" if isinstance(limit, float) else limit for key, limit in context.items()}
        return f"expected {_EXPECTED[kind].format(**limits)}{given}{near}"
    return f"{error['msg']}{given}"


def shown(value: Any) -> str:
    """Return a value as it can be written in a suite, at most 80 characters of it."""
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _model_at(model: type[BaseModel], loc: list[str]) -> type[BaseModel]:
    """Return the section of a suite at `loc`, or the innermost one around it."""
    current: Any = model
    for part in loc:
        fields: Mapping[str, Any] = current.model_fields
        # In a dictionary of entries, the next part of `loc` is the name of an entry, not a field.
        current = (_model_in(fields[part].annotation) if part in fields else None) or current
    return current


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = [m for m in map(_model_in, getattr(annotation, "__args__", ())) if m is not None]
    return models[-1] if models else None


def _keys(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)
