"""The model card of an exported generator: its method and training, its metrics, and its use."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from msgunet.core.attempts import measured_facts, trained_facts
from msgunet.core.errors import UserError
from msgunet.core.frames import read_frame
from msgunet.core.metrics import METRICS, headings
from msgunet.core.settings import EvaluationSettings, ImageFormat, RunSettings
from msgunet.core.table import number
from msgunet.core.text import markdown, markdown_code
from msgunet.data.registry import datasets
from msgunet.methods.generator import LoadedGenerator
from msgunet.report.conditions import data_parts, training_conditions

# The last heading, by which a card is recognised.
_CHECKS = "## Checks of this file"
_USE = """\
```python
{imports}

session = onnxruntime.InferenceSession({file})
pixels = np.asarray({read}, np.float32){axis}
source = (pixels.transpose(2, 0, 1)[None] - {low}) / {half} - 1
(output,) = session.run(["output"], {{"source": source}})
values = ((output[0].transpose(1, 2, 0) + 1) * {target_half}).round().clip(0, {target_span}) + {target_low}
{write}
```"""

_ANY_OPENCV = """\
OpenCV's `cv2.dnn` reads this file from version 5 on. For OpenCV 4, export a single size with `--size WIDTH HEIGHT`."""


def card_path(model: Path) -> Path:
    """Return the path of an exported model's card, next to the model.

    Raises:
        UserError: a file that is not a model card already exists there.

    """
    card = model.with_suffix(".md")
    if card.is_file() and _CHECKS not in card.read_text(encoding="utf-8"):
        raise UserError(f"{card} already exists and is not a model card; give --onnx another name")
    return card


def model_card(
    generator: LoadedGenerator, model: Path, out: Path, notes: Sequence[str], size: tuple[int, int] | None = None
) -> str:
    """Return a Markdown card for `model`, exported as `out`; `notes` describe the export and its checks.

    `size` (width, height) is that of the images that the file accepts; None means any. Conditions and metrics come from
    the files next to the model, if they belong to that very training.
    """
    method, settings = generator.method, generator.settings
    source_format, target_format = settings.formats
    stride = method.stride(method.options, settings.size)
    facts = trained_facts(model.parent, settings)
    rows = {
        "method": f"{method.title}{f' ({method.reference})' if method.reference else ''}",
        "data set": _dataset(settings),
        "source → target": f"{source_format} ({settings.source_kind}) → {target_format} ({settings.target_kind})",
        "prepared images": "; ".join(data_parts(settings)),
        "trained at": "{}×{} pixels, seed {}".format(*settings.size, settings.seed),
        "training": ", ".join(training_conditions(settings, facts, method)),
    }
    if facts:
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        rows |= {"device": facts["device"], "commit": facts["commit"], "versions": versions}
    lines = [
        f"# {markdown(method.title)}, trained on {markdown(settings.dataset)}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {markdown(value)} |" for name, value in rows.items()),
        "",
        "## Metrics",
        "",
        _metrics(model.parent, settings),
        "",
        "## Use",
        "",
        _shapes(out, settings, stride, size),
        "",
        _use(out, settings),
        "",
        *([] if size else [_ANY_OPENCV, ""]),
        "Images of any size, even larger than memory: "
        + markdown_code(f"msgunet translate {shlex.quote(model.name)} source.png --out results")
        + ".",
        "",
        _CHECKS,
        "",
        *(f"- {markdown(note)}" for note in notes),
        "",
    ]
    return "\n".join(lines)


def _shapes(out: Path, settings: RunSettings, stride: int, size: tuple[int, int] | None) -> str:
    source_format = settings.source_format
    shape = f"batch, {source_format.channels}, height, width"
    text = (
        f"The input of {markdown_code(out.name)} is `source`, of shape ({shape}) with values in [-1, 1]: "
        f"{source_format.range[0]} maps to -1 and {source_format.range[1]} to 1. "
    )
    if size is None:
        text += f"Height and width can have any value; multiples of {stride} need no padding. "
    else:
        text += "The batch is 1, the width {} and the height {}. ".format(*size)
    return text + "`output` has the size of `source`; `output_1`, if present, has half of it, rounded up, and so on."


def _dataset(settings: RunSettings) -> str:
    """Return the data set's name and, if the prepared data set still exists, its title and licence."""
    file = Path(settings.data) / "dataset.json"
    if not file.is_file():
        return settings.dataset
    kind = datasets()[json.loads(file.read_text(encoding="utf-8"))["kind"]]
    return f"{settings.dataset}: {kind.title}; licence: {kind.licence} ({kind.source_url})"


def _metrics(folder: Path, settings: RunSettings) -> str:
    file = folder / "evaluation.json"
    recorded = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    kept = EvaluationSettings.model_fields.keys() & recorded.keys()
    evaluation = EvaluationSettings(**{key: recorded[key] for key in kept})
    if not measured_facts(folder, settings, evaluation):
        return "Not evaluated, or the results are not next to the model."
    frame = read_frame(folder / "metrics.csv")
    means = frame.groupby("protocol")[list(evaluation.metrics)].agg(["mean", "std", "count"])
    count = frame["id"].nunique()
    heads = headings(evaluation.metrics, unit=False).values()
    head = "| protocol | " + " | ".join(heads) + " |"
    lines = [head, "|---|" + "---:|" * len(evaluation.metrics)]
    for protocol in evaluation.protocols:
        cells = []
        for name in evaluation.metrics:
            mean, deviation, defined = means.loc[protocol, name]
            text = " ± ".join(number(value, f".{METRICS[name].digits}f").text for value in (mean, deviation))
            cells.append("undefined" if defined == 0 else text if defined == count else f"{text} ({defined:g} images)")
        lines.append(f"| {protocol} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + f"\n\nMean and standard deviation over {count} test images (PSNR in dB)."


def _use(out: Path, settings: RunSettings) -> str:
    source_format, target_format = settings.formats
    low, high = source_format.range
    modules = {"numpy as np", "onnxruntime"}
    if _pillow_knows(source_format):
        modules.add("Image")
        read = 'Image.open("source.png")'
        read += {(1, 8): '.convert("L")', (3, 8): '.convert("RGB")'}.get(
            (source_format.channels, source_format.bits), ""
        )
    else:
        modules.add("tifffile")
        read = 'tifffile.imread("source.tif")'
    values = f'values{"[..., 0]" if target_format.channels == 1 else ""}.astype("{target_format.dtype}")'
    if _pillow_knows(target_format):
        modules.add("Image")
        write = f'Image.fromarray({values}).save("target.png")'
    else:
        modules.add("tifffile")
        write = f'tifffile.imwrite("target.tif", {values})'
    return _USE.format(
        imports="\n".join(
            "from PIL import Image" if name == "Image" else f"import {name}" for name in sorted(modules, key=str.lower)
        ),
        file=json.dumps(out.name, ensure_ascii=False),
        read=read,
        axis="[..., None]" if source_format.channels == 1 else "",
        low=low,
        half=(high - low) / 2,
        target_low=target_format.range[0],
        target_half=(target_format.range[1] - target_format.range[0]) / 2,
        target_span=target_format.range[1] - target_format.range[0],
        write=write,
    )


def _pillow_knows(one: ImageFormat) -> bool:
    """Return whether Pillow can read and write images of this format."""
    return one.channels == 1 or (one.channels, one.bits) == (3, 8)
