"""Save, load and run generators: safetensors files with the run's settings in the metadata."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from msgunet.core.bugs import bug_in
from msgunet.core.errors import UserError
from msgunet.core.files import atomic, canonical_json, differences
from msgunet.core.permissions import explain
from msgunet.core.settings import RunSettings
from msgunet.core.text import first_line
from msgunet.data.pairs import bytes_on, keyed_seed, normalise, pyramid, to_pixels
from msgunet.device.pick import own_random_state, seed_random_numbers
from msgunet.device.precision import dtype_of, set_precision
from msgunet.methods.contract import built, checked_outputs
from msgunet.methods.inference import layout_of, prepare
from msgunet.methods.method import Method
from msgunet.methods.method_file import code_of, is_trusted, trust
from msgunet.methods.nearest import instead_of
from msgunet.methods.norms import fixed_statistics, per_image_norms
from msgunet.methods.registry import method_of
from msgunet.methods.replay import CudaRecording, Replayed

_METADATA = "msgunet-generator-1"


def save_generator(path: Path, state: dict[str, Tensor], settings: RunSettings) -> None:
    """Write a generator without pickle: its weights and the settings needed to rebuild it."""
    # A single metadata entry: safetensors writes several in arbitrary order, but equal generators need equal files.
    metadata = {_METADATA: canonical_json(settings.model_dump(mode="json"))}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if not tensors:  # safetensors cannot store zero tensors
        tensors = {"empty": torch.zeros(1)}
    with atomic(path) as temporary:
        save_file(tensors, str(temporary), metadata)


@dataclass
class LoadedGenerator:
    """A published generator, ready to run.

    `cuda_graphs`: `auto` replays passes of a size that repeats as a CUDA graph; `off` does not.
    """

    settings: RunSettings
    method: Method
    network: nn.Module
    device: torch.device
    precision: str = "fp32"
    cuda_graphs: str = "auto"
    _normalised: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        graphs = self.device.type == "cuda" and self.cuda_graphs == "auto"
        self._layout = layout_of(self.network, self.device.type, self.precision)
        self._passes = Replayed(self.network, CudaRecording if graphs else None)

    @torch.inference_mode()
    def __call__(self, sources: Sequence[Tensor], key: object) -> list[Tensor]:
        """Map a pyramid of sources in [-1, 1] to a pyramid of fp32 outputs; `key`, an image's id, seeds dropout."""
        inputs = self._to_device(sources)
        with own_random_state(self.device):
            seed_random_numbers(self.device, keyed_seed(self.settings.seed, "inference", key))
            outputs = checked_outputs(self.method, self.network, self._passes(inputs))
            return [output.float() for output in outputs]

    @property
    def source_scales(self) -> int:
        """The number of scales of the source that the network takes."""
        return self.method.scales(self.method.options, self.settings.size)

    def sources(self, pixels: np.ndarray) -> list[Tensor]:
        """Return an image (H, W, C) as the pyramid that the network takes: (1, C, h, w) in [-1, 1], on its device.

        Only bytes are copied to the device.
        """
        image = bytes_on(self.device, pixels)
        given = self.settings.source_format
        if self.device.type != "cuda":
            source = normalise(image, given.range)
        else:
            # A GPU divides in another way than a CPU, so it gets a table of all values.
            if self._normalised is None:
                self._normalised = normalise(torch.arange(2**given.bits), given.range).to(self.device)
            source = self._normalised[image.int()]
        return pyramid(source, self.source_scales, self.settings.source_kind)

    def translated(self, pixels: np.ndarray, key: object) -> np.ndarray:
        """Return the output for an image (H, W, C) of a size that the network takes, in the format of the targets."""
        return to_pixels(self(self.sources(pixels), key)[0][0], self.settings.target_format)

    @contextmanager
    def with_statistics_of(self, sources: Sequence[Tensor], key: object) -> Iterator[None]:
        """Within this context, per-image norms use the statistics of `sources`; for the tiles of one image."""
        with own_random_state(self.device), torch.inference_mode():
            seed_random_numbers(self.device, keyed_seed(self.settings.seed, "inference", key))
            inputs = self._to_device(sources)
            # This pass needs the memory of those of other sizes.
            self._passes.forget()
            self._passes.paused = bool(per_image_norms(self.network))
            try:
                with fixed_statistics(self.network, inputs):
                    yield
            finally:
                self._passes.paused = False

    def on_shapes(self) -> "LoadedGenerator":
        """Return this generator on shapes alone, prepared for the same kind of device, to count what it needs."""
        meta = torch.device("meta")
        with meta:
            network = built(self.method, "build_generator")
            prepare(self.method, network, meta, self.precision, self.device.type)
        return LoadedGenerator(self.settings, self.method, network, meta, self.precision)

    def _to_device(self, sources: Sequence[Tensor]) -> list[Tensor]:
        set_precision(self.precision)
        dtype = dtype_of(self.precision)
        return [source.to(self.device, dtype, memory_format=self._layout) for source in sources]


def load_generator(
    path: Path,
    device: torch.device | str,
    precision: str = "fp32",
    method_file: Path | None = None,
    cuda_graphs: str = "auto",
) -> LoadedGenerator:
    """Load a generator written by `save_generator`; `precision` is fp32, tf32 (CUDA) or bf16.

    `cuda_graphs` is `auto` or `off` (see `LoadedGenerator`).

    The file holds no code, and none is executed because the file names it: the code of a custom method comes from
    `method_file`, whose hash is compared before it is executed.

    Raises:
        UserError: the file is missing, damaged, or not a generator of this project; or the code of its method is
            missing, or differs from the code it was trained with.

    """
    device = torch.device(device)
    if not path.is_file():
        raise UserError(instead_of(path))
    settings, stored = _read_header(path)
    method = _build_method(path, _locate_code(path, settings, method_file))
    # On shapes alone, so that nothing is allocated before the file is known to fit.
    try:
        with torch.device("meta"):
            expected = built(method, "build_generator").state_dict()
    except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
        if bug_in(error) is not None:
            raise
        raise UserError(f"{path}: its settings describe no network that can be built ({first_line(error)})") from error
    if problem := _difference(stored, expected):
        raise UserError(f"{path}: {problem}")
    tensors = load_file(str(path))
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path}: the weights contain NaN or infinite values (tensor '{name}')")
    network = built(method, "build_generator")
    network.load_state_dict({name: tensors[name] for name in expected})
    prepare(method, network, device, precision)
    return LoadedGenerator(settings, method, network, device, precision, cuda_graphs)


def changed_settings(path: Path, settings: RunSettings) -> list[tuple[str, Any, Any]]:
    """Return where these settings differ from those that the generator at `path` was trained with (`differences`).

    The list is empty if there is no readable generator.
    """
    try:
        old, _ = _read_header(path)
    except UserError:
        return []
    return differences(old.model_dump(mode="json"), settings.model_dump(mode="json"))


def retraining_note(path: Path, settings: RunSettings) -> str:
    """Return what a training with these settings does to a generator at `path` that was trained with others.

    The note is empty if the settings are the same, or if there is no readable generator.
    """
    found = changed_settings(path, settings)
    if not found:
        return ""
    changes = ", ".join(f"{place} {before} → {now}" for place, before, now in found)
    return f"trained before with other settings ({changes}): begins at step 0, and replaces the result at its end"


# The names of data types in a safetensors file.
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def _read_header(path: Path) -> tuple[RunSettings, dict[str, tuple[list[int], str]]]:
    """Return the settings in a generator's file, and the shape and type of each tensor; no tensor is read."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        # The library reports a file that it may not read as missing.
        path.open("rb").close()
        with safetensors.safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
            stored = {name: (part.get_shape(), part.get_dtype()) for name, part in slices.items()}
    except PermissionError as error:
        raise UserError(explain(error, path)) from error
    except Exception as error:  # a damaged header can make the reader raise anything
        raise UserError(f"{path}: not a readable generator ({first_line(error)})") from error
    if _METADATA not in metadata:
        raise UserError(f"{path}: not a generator of this project (its metadata has no '{_METADATA}')")
    try:
        return RunSettings.model_validate_json(metadata[_METADATA]), stored
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()[:3])
        raise UserError(f"{path}: its settings are not those of a run of this version ({problems})") from error


def _build_method(path: Path, settings: RunSettings) -> Method:
    try:
        cls = method_of(settings)
        options = cls.Options.model_validate(settings.options)
    except UserError as error:
        raise UserError(*(f"{path}: {problem}" for problem in error.problems)) from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}" for e in error.errors()[:3])
        raise UserError(
            f"{path}: the options of method '{settings.method}' are wrong: {'; '.join(problems)}"
        ) from error
    if problem := cls.problem(options, settings.size):
        raise UserError(f"{path}: {problem}")
    return cls(options, settings.size, settings.channels)


def _difference(stored: dict[str, tuple[list[int], str]], expected: dict[str, Tensor]) -> str | None:
    """Return the first difference between the tensors in a file and those of its network, or None."""
    for name, tensor in expected.items():
        if name not in stored:
            return f"tensor '{name}' is missing"
        shape, dtype = list(tensor.shape), _DTYPES.get(tensor.dtype, str(tensor.dtype))
        if stored[name] != (shape, dtype):
            return f"tensor '{name}' is {stored[name][1]} {stored[name][0]}, but its network has {dtype} {shape}"
    unknown = sorted(stored.keys() - expected.keys() - {"empty"})
    return f"tensor '{unknown[0]}' is not part of its network" if unknown else None


def _locate_code(path: Path, settings: RunSettings, method_file: Path | None) -> RunSettings:
    """Return the settings with the file that holds the method's code now, which the user must have named."""
    if settings.file is None:
        if method_file is not None:
            raise UserError(f"{path}: '{settings.method}' is a built-in method and needs no file; omit {method_file}")
        return settings
    advice = "pass its Python file: --method FILE, or in Python msgunet.load(..., method=FILE)"
    file = settings.file if method_file is None else str(method_file)
    if method_file is None and not is_trusted(file):
        raise UserError(
            f"{path}: trained with the custom method '{settings.method}' of {file!r}; that this file names it is no "
            f"reason to execute it: {advice}"
        )
    try:
        if code_of(file) != settings.code:
            raise UserError(f"{file} has changed since {path} was trained")
    except UserError as error:
        raise UserError(*error.problems, f"  {advice}, as it was then") from error
    trust(file)
    return settings.model_copy(update={"file": file})
