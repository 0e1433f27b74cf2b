"""Generators on disk: safetensors with the run's settings in the metadata, and running them."""

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
    """Publish a generator: weights and all that is needed to build it again, without pickle."""
    # One entry only: safetensors writes several in any order, and the same generator must give the same file.
    metadata = {_METADATA: canonical_json(settings.model_dump(mode="json"))}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if not tensors:  # safetensors cannot hold nothing
        tensors = {"empty": torch.zeros(1)}
    with atomic(path) as temporary:
        save_file(tensors, str(temporary), metadata)


def prepare(method: Method, generator: nn.Module, device: torch.device, precision: str = "fp32") -> nn.Module:
    """Make a generator fast to run, for inference only; it is changed and returned.

    Weights that are computed from others, as spectral norm's are, are computed once; batch norm that has statistics is
    folded into the convolutions; weights go to channels-last memory, and for `bf16` weights and activations are
    bfloat16 (inputs are to be given so, outputs come so).
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
        """Pyramid of sources in [-1, 1] to pyramid of outputs, fp32; `key`, an image's id, seeds dropout."""
        given = self._given(sources)
        with torch.random.fork_rng():
            torch.manual_seed(keyed_seed(self.settings.seed, "inference", key))
            return [output.float() for output in self.network(given)]

    @contextmanager
    def normalised_by(self, sources: Sequence[Tensor], key: object) -> Iterator[None]:
        """Within it, images are parts of this one, whose statistics norms use that would take their own."""
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(keyed_seed(self.settings.seed, "inference", key))
            with fixed_statistics(self.network, self._given(sources)):
                yield

    def _given(self, sources: Sequence[Tensor]) -> list[Tensor]:
        set_precision(self.precision)
        dtype = dtype_of(self.precision)
        return [source.to(self.device, dtype, memory_format=torch.channels_last) for source in sources]


def load_generator(
    path: Path, device: torch.device | str, precision: str = "fp32", method_file: Path | None = None
) -> LoadedGenerator:
    """Load what `save_generator` wrote; `precision`: fp32, tf32 (CUDA) or bf16.

    A file of weights holds no code: that of a user's own method comes from the file that the settings name, or from
    `method_file`, where that is elsewhere now.

    Raises:
        UserError: the file is missing, damaged, or not a generator of this project; the code of its method is not
            there, or is another than it was trained with.

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
    method = build_method(_with_code(path, settings, method_file))
    network = method.build_generator()
    tensors.pop("empty", None)
    network.load_state_dict(tensors)
    return LoadedGenerator(settings, method, prepare(method, network, device, precision), device, precision)


def _with_code(path: Path, settings: RunSettings, given: Path | None) -> RunSettings:
    """The settings with the file that holds the method's code now."""
    if settings.file is None:
        if given is not None:
            raise UserError(f"{path}: '{settings.method}' is a method of the project, which needs no file; not {given}")
        return settings
    file = settings.file if given is None else str(given)
    try:
        if custom_methods(file, again=True).code != settings.code:
            raise UserError(f"{file} has changed since {path} was trained")
    except UserError as error:
        advice = "give the file as it was then: msgunet translate --method FILE, or msgunet.load(..., method=FILE)"
        raise UserError(*error.problems, f"  {advice}") from error
    return settings.model_copy(update={"file": file})
