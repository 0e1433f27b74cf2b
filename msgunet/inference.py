"""Generators on disk: safetensors with the run's settings in the metadata, and running them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from msgunet.config import RunSettings
from msgunet.data.pairs import keyed_seed
from msgunet.errors import UserError
from msgunet.files import atomic, canonical_json
from msgunet.method import Method
from msgunet.registry import build_method

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


@dataclass
class LoadedGenerator:
    """A published generator, ready to run."""

    settings: RunSettings
    method: Method
    network: nn.Module
    device: torch.device

    @torch.inference_mode()
    def __call__(self, sources: Sequence[Tensor], key: object) -> list[Tensor]:
        """Pyramid of sources in [-1, 1] to pyramid of outputs; `key`, a picture's id, seeds dropout."""
        with torch.random.fork_rng():
            torch.manual_seed(keyed_seed(self.settings.seed, "inference", key))
            return self.network([source.to(self.device) for source in sources])


def load_generator(path: Path, device: torch.device) -> LoadedGenerator:
    """Load what `save_generator` wrote.

    Raises:
        UserError: the file is missing, damaged, or not a generator of this project.

    """
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
    method = build_method(settings)
    network = method.build_generator()
    tensors.pop("empty", None)
    network.load_state_dict(tensors)
    network.to(device)
    method.prepare_inference(network)
    return LoadedGenerator(settings, method, network, device)
