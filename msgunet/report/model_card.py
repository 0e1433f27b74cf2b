"""A card for a published generator: what it is, how it was trained, how good it was, how it is used."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from msgunet.core.attempts import measured_facts, trained_facts
from msgunet.core.errors import UserError
from msgunet.core.settings import EvaluationSettings, RunSettings
from msgunet.data.registry import datasets
from msgunet.methods.generator import LoadedGenerator
from msgunet.report.collect import training_conditions

# The last heading, by which a card is known.
_CHECKS = "## Checks of this file"
_USE = """\
```python
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{file}")
pixels = np.asarray(Image.open("source.png"){convert}, np.float32){axis}
source = (pixels.transpose(2, 0, 1)[None] - {low}) / {half} - 1
(output,) = session.run(["output"], {{"source": source}})
values = ((output[0].transpose(1, 2, 0) + 1) * {target_half}).round().clip(0, {target_span}) + {target_low}
Image.fromarray(values{flat}.astype("{dtype}")).save("target.png")
```"""


def card_path(model: Path) -> Path:
    """Where the card of an exported model goes: beside it.

    Raises:
        UserError: a file that is no model card is there.

    """
    card = model.with_suffix(".md")
    if card.is_file() and _CHECKS not in card.read_text(encoding="utf-8"):
        raise UserError(f"{card} is there already and is no model card; give --onnx another name")
    return card


def model_card(generator: LoadedGenerator, model: Path, out: Path, notes: Sequence[str]) -> str:
    """Markdown about `model`, exported as `out`; `notes`: of the export and its checks.

    Conditions and metrics are those of the files beside the model, where they are of that very training.
    """
    method, settings = generator.method, generator.settings
    given, wanted = settings.formats
    stride = method.stride(method.options, settings.size)
    facts = trained_facts(model.parent, settings)
    rows = {
        "method": f"{method.title}{f' ({method.reference})' if method.reference else ''}",
        "data set": _dataset(settings),
        "source → target": f"{given} ({settings.source_kind}) → {wanted} ({settings.target_kind})",
        "trained at": "{}×{} pixels, seed {}".format(*settings.size, settings.seed),
        "training": ", ".join(training_conditions(settings, facts)),
    }
    if facts:
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        rows |= {"device": facts["device"], "commit": facts["commit"], "versions": versions}
    lines = [
        f"# {method.title}, trained on {settings.dataset}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_escaped(value)} |" for name, value in rows.items()),
        "",
        "## Measures",
        "",
        _measures(model.parent, settings),
        "",
        "## Use",
        "",
        f"`{out.name}` takes `source`, (batch, {given.channels}, height, width) in [-1, 1]: {given.range[0]} is -1 and "
        f"{given.range[1]} is 1. Height and width are any multiples of {stride}. `output` is as large; `output_1`, "
        "where there is one, half of it, and so on.",
        "",
        _use(out, settings),
        "",
        f"Images of any size, also larger than memory: `msgunet translate {model.name} source.png --out results`.",
        "",
        _CHECKS,
        "",
        *(f"- {note}" for note in notes),
        "",
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


def _dataset(settings: RunSettings) -> str:
    """Name and licence, the latter where the prepared data are still there to say what they are."""
    file = Path(settings.data) / "dataset.json"
    if not file.is_file():
        return settings.dataset
    kind = datasets()[json.loads(file.read_text(encoding="utf-8"))["kind"]]
    return f"{settings.dataset}: {kind.title}; licence: {kind.licence} ({kind.source_url})"


def _measures(folder: Path, settings: RunSettings) -> str:
    file = folder / "evaluation.json"
    said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    evaluation = EvaluationSettings(**{key: said[key] for key in ("metrics", "protocols") if key in said})
    if not measured_facts(folder, settings, evaluation):
        return "Not measured, or not beside the model."
    frame = pd.read_csv(folder / "metrics.csv", dtype={"id": str})
    means = frame.groupby("protocol")[list(evaluation.metrics)].agg(["mean", "std"])
    digits = {"psnr": 2}
    head = "| protocol | " + " | ".join(f"{name.upper()}" for name in evaluation.metrics) + " |"
    lines = [head, "|---|" + "---:|" * len(evaluation.metrics)]
    for protocol in evaluation.protocols:
        found = {name: means.loc[protocol, name] for name in evaluation.metrics}
        cells = ["{0:.{2}f} ± {1:.{2}f}".format(*pair, digits.get(name, 3)) for name, pair in found.items()]
        lines.append(f"| {protocol} | " + " | ".join(cells) + " |")
    count = frame["id"].nunique()
    return "\n".join(lines) + f"\n\nMean and standard deviation over {count} test images (PSNR in dB)."


def _use(out: Path, settings: RunSettings) -> str:
    given, wanted = settings.formats
    # What Pillow has images for.
    if not all(one.channels == 1 or (one.channels, one.bits) == (3, 8) for one in (given, wanted)):
        return "For images of this kind see `msgunet.data.images.read` and `save`."
    low, high = given.range
    convert = {(1, 8): '.convert("L")', (3, 8): '.convert("RGB")'}.get((given.channels, given.bits), "")
    return _USE.format(
        file=out.name,
        convert=convert,
        axis="[..., None]" if given.channels == 1 else "",
        low=low,
        half=(high - low) / 2,
        target_low=wanted.range[0],
        target_half=(wanted.range[1] - wanted.range[0]) / 2,
        target_span=wanted.range[1] - wanted.range[0],
        flat="[..., 0]" if wanted.channels == 1 else "",
        dtype=wanted.dtype,
    )
