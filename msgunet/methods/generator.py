"""Save, load and run generators: safetensors files with the run's settings in the metadata."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from msgunet.core.errors import UserError
from msgunet.core.files import atomic, canonical_json
from msgunet.core.settings import RunSettings
from msgunet.data.pairs import keyed_seed
from msgunet.device.precision import dtype_of, set_precision
from msgunet.methods.folding import fold_batch_norm, fold_parametrizations
from msgunet.methods.method import Method
from msgunet.methods.norms import fixed_statistics
from msgunet.methods.registry import build_method, custom_methods

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


def prepare(method: Method, generator: nn.Module, device: torch.device, precision: str = "fp32") -> nn.Module:
    """Optimise a generator for inference, in place, and return it.

    Parametrized weights, such as those under spectral norm, are computed once. Batch norm with running statistics is
    folded into the convolutions. Weights are stored channels-last. With `bf16`, weights and activations are bfloat16:
    the caller passes bfloat16 inputs and receives bfloat16 outputs.
    """
    method.prepare_inference(generator)
    fold_parametrizations(generator)
    fold_batch_norm(generator)
    return generator.to(device, dtype_of(precision), memory_format=torch.channels_last)


@dataclass
class LoadedGenerator:
    """A published generator, ready to run."""

    settings: RunSettings
    method: Method
    network: nn.Module
    device: torch.device
    precision: str = "fp32"

    @torch.inference_mode()
    def __call__(self, sources: Sequence[Tensor], key: object) -> list[Tensor]:
        """Map a pyramid of sources in [-1, 1] to a pyramid of fp32 outputs; `key`, an image's id, seeds dropout."""
        inputs = self._to_device(sources)
        with torch.random.fork_rng():
            torch.manual_seed(keyed_seed(self.settings.seed, "inference", key))
            return [output.float() for output in self.network(inputs)]

    @contextmanager
    def with_statistics_of(self, sources: Sequence[Tensor], key: object) -> Iterator[None]:
        """Within this context, per-image norms use the statistics of `sources`; for the tiles of one image."""
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(keyed_seed(self.settings.seed, "inference", key))
            with fixed_statistics(self.network, self._to_device(sources)):
                yield

    def _to_device(self, sources: Sequence[Tensor]) -> list[Tensor]:
        set_precision(self.precision)
        dtype = dtype_of(self.precision)
        return [source.to(self.device, dtype, memory_format=torch.channels_last) for source in sources]


def load_generator(
    path: Path, device: torch.device | str, precision: str = "fp32", method_file: Path | None = None
) -> LoadedGenerator:
    """Load a generator written by `save_generator`; `precision` is fp32, tf32 (CUDA) or bf16.

    The file holds no code. The code of a custom method comes from the file that the settings name, or from
    `method_file` if that file has moved.

    Raises:
        UserError: the file is missing, damaged, or not a generator of this project; or the code of its method is
            missing, or differs from the code it was trained with.

    """
    device = torch.device(device)
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(str(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: not a readable generator ({error}); train it again") from error
    if _METADATA not in metadata:
        raise UserError(f"{path}: not a generator of this project (its metadata has no '{_METADATA}')")
    try:
        settings = RunSettings.model_validate_json(metadata[_METADATA])
    except ValidationError as error:
        raise UserError(f"{path}: made by another version of this project; train it again") from error
    method = build_method(_locate_code(path, settings, method_file))
    network = method.build_generator()
    tensors.pop("empty", None)
    network.load_state_dict(tensors)
    return LoadedGenerator(settings, method, prepare(method, network, device, precision), device, precision)


def _locate_code(path: Path, settings: RunSettings, method_file: Path | None) -> RunSettings:
    """Return the settings with the file that holds the method's code now."""
    if settings.file is None:
        if method_file is not None:
            raise UserError(f"{path}: '{settings.method}' is a built-in method and needs no file; omit {method_file}")
        return settings
    file = settings.file if method_file is None else str(method_file)
    try:
        if custom_methods(file, reload=True).code != settings.code:
            raise UserError(f"{file} has changed since {path} was trained")
    except UserError as error:
        advice = (
            "pass the file that it was trained with: msgunet translate --method FILE, or msgunet.load(..., method=FILE)"
        )
        raise UserError(*error.problems, f"  {advice}") from error
    return settings.model_copy(update={"file": file})
