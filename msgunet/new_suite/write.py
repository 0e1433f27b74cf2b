"""`msgunet new-suite`: write a commented suite for a user's own images, sized to what this machine can train."""

import re
import shlex
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import torch
import yaml

from msgunet.core.errors import UserError
from msgunet.core.files import atomic, write_text
from msgunet.core.text import printable
from msgunet.device.facts import flat_facts
from msgunet.new_suite.choose import HOURS, METHODS, Choice, choose, entry_of, msgunet_scales, perceptual_of
from msgunet.new_suite.discover import Discovery
from msgunet.suite.file import SuiteLoader
from msgunet.suite.forecast import STEPS_FILE
from msgunet.suite.plan import load_plan

# From this change of the aspect ratio on, images are named.
_VISIBLE = 0.05


def new_suite(
    path: Path, found: Discovery, hours: float | None = None, device: str | None = None, force: bool = False
) -> str:
    """Write a suite that trains four methods on the images within about `hours`; return a summary of the choices.

    Networks and sizes are chosen by timing a few training steps on `device` (`cpu` or `cuda`; by default a GPU if
    available). `hours` is 8 on a CPU and 24 on a GPU by default.

    Raises:
        UserError: the file exists already, its name is no valid suite name, or even small images take too long.

    """
    if path.suffix not in (".yaml", ".yml") or not re.fullmatch(r"[a-z0-9_]{1,64}", path.stem):
        raise UserError(f"{path}: a suite needs a file name like my_images.yaml, with only a-z, 0-9 and _")
    if path.exists() and not force:
        raise UserError(f"{path} exists already; choose another name, or pass --force")
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    hours = hours or HOURS[on.type]
    choice = choose(found, hours, on)
    write_text(path, _text(path, found, choice, hours, on))
    load_plan.cache_clear()
    try:
        plan = load_plan(str(path))
    except UserError:
        path.unlink()
        raise
    _write_speeds(plan.results / STEPS_FILE, choice, on)
    return _summary(path, found, choice)


def _write_speeds(path: Path, choice: Choice, device: torch.device) -> None:
    """Write the speeds of the timed steps as a table like that of `msgunet bench`, for `msgunet plan`."""
    same = {"part": "training", "way": "engine", "precision": "fp32", **flat_facts(device, torch.get_num_threads())}
    rows = [
        {"entry": name, "width": choice.size[0], "height": choice.size[1], **same}
        | {"median_ms": 1000 * step.seconds, "tflop_per_s": step.flop / step.seconds / 1e12}
        for name, step in choice.steps.items()
    ]
    with atomic(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    value = list(value) if isinstance(value, tuple) else value
    return (
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
        .strip()
        .removesuffix("...")
        .strip()
    )


def _text(path: Path, found: Discovery, choice: Choice, hours: float, device: torch.device) -> str:
    """Return the text of the suite, from the template next to this file."""
    loader = jinja2.PackageLoader("msgunet.new_suite", ".")
    environment = jinja2.Environment(  # noqa: S701 (YAML, no HTML)
        loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["flow"] = _flow
    # YAML would read some names as numbers or booleans.
    plain = yaml.load(path.stem, SuiteLoader) == path.stem  # noqa: S506 (a SafeLoader)
    cpu = device.type == "cpu"
    place = found.options.get("pairs") or f"{found.options['source']} to {found.options['target']}"
    return environment.get_template("suite.yaml.jinja").render(
        name=path.stem if plain else f'"{path.stem}"',
        path=shlex.quote(str(path)),
        hours=f"{hours:g}",
        cpu=cpu,
        description=f"Custom images: {place}.",
        found=found,
        choice=choice,
        sizes=_sizes(found, choice.size),
        shapes=_shapes(found, choice.size),
        methods={method: entry_of(method, device) for method in METHODS},
        perceptual=perceptual_of(device),
        ablation=msgunet_scales(choice.size, device) > 1,
        compute={"device": "cpu", "threads": 1, "checkpoint_minutes": 2}
        if cpu
        else {"gpu_required": True, "threads": 4, "workers": 4, "checkpoint_minutes": 10},
    )


def _stretch(size: tuple[int, int], to: tuple[int, int]) -> float:
    """Return by how much resizing changes an aspect ratio: 0.5 if one side becomes 1.5 times longer than the other."""
    ratio = to[0] * size[1] / (to[1] * size[0])
    return max(ratio, 1 / ratio) - 1


def _sizes(found: Discovery, to: tuple[int, int]) -> str:
    """Return what sizes the pairs have, and what resizing does to them; `_shapes` tells of visible changes."""
    (width, height), count = found.size, sum(found.sizes.values())
    if not found.other_sizes:
        text = f"All {count} pairs are {width}x{height}"
    else:
        text = f"{found.sizes[found.size]} of {count} pairs are {width}x{height}, the others have other sizes"
    if found.size == to and not found.other_sizes:
        return f"{text} and keep this size."
    stretch = _stretch(found.size, to)
    small = 0.005 <= stretch < _VISIBLE
    whose = f"the aspect ratio of {width}x{height}" if found.other_sizes else "their aspect ratio"
    change = f", which changes {whose} by {100 * stretch:.0f} %" if small else ""
    return f"{text}. All are resized to {to[0]}x{to[1]}{change}."


def _shapes(found: Discovery, to: tuple[int, int]) -> str:
    """Return whose shape resizing changes visibly, and by how much at most, the worst first; empty if no image's."""
    changes: dict[str, dict[tuple[int, int], float]] = {}
    for size in found.sizes:
        if (change := _stretch(size, to)) >= _VISIBLE:
            shape = "square" if size[0] == size[1] else "portrait" if size[0] < size[1] else "landscape"
            changes.setdefault(shape, {})[size] = change
    listed = []
    for shape, sizes in sorted(changes.items(), key=lambda item: -max(item[1].values())):
        count = sum(found.sizes[size] for size in sizes)
        most = "" if len({round(100 * change) for change in sizes.values()}) == 1 else "up to "
        images = f"{count} {shape} image{'s' if count > 1 else ''}"
        listed.append(f"{images} by {most}{100 * max(sizes.values()):.0f} %")
    if not listed:
        return ""
    return f"Resizing changes the shape of {', '.join(listed)}. The option fit keeps shapes: crop or pad."


def _summary(path: Path, found: Discovery, choice: Choice) -> str:
    steps = ", ".join(f"{name} {step.seconds:.2g} s" for name, step in choice.steps.items())
    lines = [
        f"{path}: {found.counts[0]} training and {found.counts[1]} test pairs at {choice.size[0]}x{choice.size[1]}, "
        f"{choice.epochs} epochs of {len(METHODS)} methods (a step: {steps})",
        *(f"  {note}" for note in (*found.notes, *filter(None, [_shapes(found, choice.size)]))),
        "Check it, then run:",
        f"  msgunet plan {shlex.quote(str(path))}",
        f"  snakemake --cores all --config suite={shlex.quote(str(path))}",
    ]
    return printable("\n".join(lines))
