"""`msgunet export`: write a published generator as a verified ONNX file."""

import copy
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from msgunet.core.errors import UserError
from msgunet.core.files import atomic, canonical_json
from msgunet.data.pairs import pyramid
from msgunet.methods.generator import LoadedGenerator
from msgunet.methods.norms import per_image_norms
from msgunet.translation.translate import least_sides

# The largest allowed difference from PyTorch's outputs, which are in [-1, 1].
TOLERANCE = 1e-4


class _ImageNorm(nn.Module):
    """A norm that uses the statistics of each image; it is exported as the instance norm operator of ONNX."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = (
            getattr(norm, "weight", None),
            getattr(norm, "bias", None),
            getattr(norm, "eps", 1e-5),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class _OneInput(nn.Module):
    """A generator that accepts a source of any size, and pads it and builds the pyramid itself, as `Model` does."""

    def __init__(self, network: nn.Module, generator: LoadedGenerator) -> None:
        super().__init__()
        method, settings = generator.method, generator.settings
        self.network, self.kind = network, settings.source_kind
        self.scales = method.scales(method.options, settings.size)
        self.stride = method.stride(method.options, settings.size)
        self.least = least_sides(self.stride, settings.size)

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        height, width = source.shape[2:]
        if self.stride > 1:
            for axis, least in zip((2, 3), self.least, strict=True):
                source = _mirrored(source, axis, least, self.stride)
        outputs = self.network(pyramid(source, self.scales, self.kind))
        return tuple(
            output[:, :, : (height + 2**k - 1) // 2**k, : (width + 2**k - 1) // 2**k]
            for k, output in enumerate(outputs)
        )


def _mirrored(x: Tensor, axis: int, least: int, stride: int) -> Tensor:
    """Extend an axis at its end by its mirror image, to a multiple of `stride` of at least `least`."""
    length = x.shape[axis]
    extended = (torch.sym_max(length, least) + stride - 1) // stride * stride
    places = torch.arange(extended)
    # Between tensors, because the exporter supports no remainder of a tensor by a symbolic number.
    places = torch.remainder(places, torch.full_like(places, 2 * length))
    return x.index_select(axis, torch.where(places < length, places, 2 * length - 1 - places))


def export_onnx(generator: LoadedGenerator, out: Path, size: tuple[int, int] | None = None) -> list[str]:
    """Write a generator as an ONNX file that accepts any batch size, height and width, or a single size.

    The input is `source`, (N, channels, height, width) in [-1, 1]. The outputs are `output`, `output_1`, …: one per
    scale. Before the file gets its name, onnxruntime runs it at three sizes (or at `size`) and its outputs are compared
    with PyTorch's. A source whose sides are no multiples of the stride is padded, and the outputs are cropped.

    Args:
        generator: a generator loaded on a CPU in fp32.
        out: the file to write.
        size: width and height of the one image that the file accepts, for runtimes without dynamic sizes (OpenCV 4);
            None means any.

    Returns:
        Notes for the model card: how this file differs from the method, and the largest difference at each size.

    Raises:
        UserError: `out` does not end in .onnx, or the outputs differ by more than `TOLERANCE`.

    """
    if out.suffix != ".onnx":
        raise UserError(f"{out}: choose a file name that ends in .onnx; the model card is written next to it")
    method, settings = generator.method, generator.settings
    stride = method.stride(method.options, settings.size)
    original, notes = _without_dropout(generator.network)
    reference, exported = (_OneInput(network, generator) for network in (original, _with_onnx_norms(original)))
    width, height = settings.size
    sizes = [(width, height), (width + stride, height), (width + 2 * stride - 1, height + stride - 1)]
    examples = [_images(settings.channels[0], one) for one in sizes]
    if size is not None:
        examples = [_images(settings.channels[0], size)[:1]]
    with torch.no_grad():
        names = ["output", *(f"output_{i}" for i in range(1, len(exported(examples[-1]))))]
    with atomic(out) as temporary:
        _export(exported, examples[-1], names, temporary, dynamic=size is None)
        notes += _describe(temporary, generator, stride)
        differences = [_compare(reference, temporary, sources) for sources in examples]
    return [*notes, *differences]


def _without_dropout(network: nn.Module) -> tuple[nn.Module, list[str]]:
    """Return the network without the dropout that some methods keep at test time, and a note if it had any."""
    network = copy.deepcopy(network)
    active = [layer for layer in network.modules() if isinstance(layer, _DropoutNd) and layer.training]
    for layer in active:
        layer.eval()
    return network, ["dropout is off in this file, although the method keeps it on at test time"] if active else []


def _with_onnx_norms(network: nn.Module) -> nn.Module:
    """Return the network with per-image norms as ONNX instance norms; batch norm would mix the images of a batch."""
    network = copy.deepcopy(network)
    norms = {id(norm) for norm in per_image_norms(network)}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in norms:
                setattr(parent, name, _ImageNorm(child))
    return network


def _export(network: nn.Module, example: Tensor, names: Sequence[str], path: Path, dynamic: bool) -> None:
    shapes = {"source": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            network,
            (example,),
            path,
            input_names=["source"],
            output_names=names,
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _describe(path: Path, generator: LoadedGenerator, stride: int) -> list[str]:
    """Add the facts that a user of the file needs to it, and return notes about its operators."""
    import onnx

    model = onnx.load(path)
    settings = generator.settings
    facts = {
        "method": settings.method,
        "stride": str(stride),
        "source_range": " ".join(map(str, settings.source_format.range)),
        "target_range": " ".join(map(str, settings.target_format.range)),
        "settings": canonical_json(settings.model_dump(mode="json")),
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    pools = [node for node in model.graph.node if node.op_type == "AveragePool"]
    values = [{one.name: onnx.helper.get_attribute_value(one) for one in node.attribute} for node in pools]
    if any(any(one.get("pads", ())) and not one.get("count_include_pad", 0) for one in values):
        return ["OpenCV 4 computes this file wrongly, because it counts the padding in averages; OpenCV 5 does not"]
    return []


def _images(channels: int, size: tuple[int, int]) -> Tensor:
    """Return two smooth random images of a width and height."""
    small = torch.rand(2, channels, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return F.interpolate(small, size[::-1], mode="bicubic", align_corners=False).clamp(-1, 1)


def _compare(network: nn.Module, path: Path, sources: Tensor) -> str:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        # One image at a time, because some norms use the statistics of the batch.
        by_image = [network(source) for source in sources.split(1)]
        expected = [torch.cat(outputs) for outputs in zip(*by_image, strict=True)]
    actual = session.run(None, {"source": sources.numpy()})
    difference = max(float(np.abs(e.numpy() - a).max()) for e, a in zip(expected, actual, strict=True))
    height, width = sources.shape[2:]
    text = f"{width}x{height}: largest difference from PyTorch {difference:.1e}"
    print(text, file=sys.stderr)
    if not difference <= TOLERANCE:
        raise UserError(f"{text}, but at most {TOLERANCE:.0e} is allowed; the file was not written")
    return text
