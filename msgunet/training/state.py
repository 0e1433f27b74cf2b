"""The state of a training (networks, optimisers, counters and history), and how it is saved and loaded."""

import copy
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msgunet.core.errors import UserError
from msgunet.core.files import canonical_json, differences
from msgunet.core.settings import ComputeSettings, RunSettings
from msgunet.data.pairs import keyed_seed
from msgunet.device.measuring import process_peak_memory
from msgunet.device.pick import seed_random_numbers
from msgunet.device.precision import autocast, training_layout
from msgunet.methods.contract import NoDiscriminator, built
from msgunet.methods.method import Method, Phase
from msgunet.methods.recompute import recompute_activations
from msgunet.training.checkpoint import KEEP, save_checkpoint
from msgunet.training.processes import Processes

_ITEMS = {
    *("settings", "generator", "discriminator", "average", "optimizers"),
    *("step", "seconds", "history", "gradients"),
}


def checkpoint_folder(out: Path, settings: RunSettings) -> Path:
    """Return the folder of a run's checkpoints. It depends on the settings, so that none are mixed up or lost."""
    return out / "checkpoints" / settings.identity


class TrainingState:
    """The contents of a checkpoint: networks, optimisers, the average of the weights, counters and history."""

    def __init__(
        self,
        method: Method,
        settings: RunSettings,
        device: torch.device,
        compute: ComputeSettings | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Build the initial state. `compute` and `processes` determine how the work is done, and change no result."""
        compute = compute or ComputeSettings()
        self.processes = processes or Processes()
        seed_random_numbers(device, keyed_seed(settings.seed, "initialisation"))
        self.generator = built(method, "build_training_generator")
        self.discriminator = built(method, "build_discriminator")
        self.has_discriminator = not isinstance(self.discriminator, NoDiscriminator)
        names = ("generator", "discriminator") if self.has_discriminator else ("generator",)
        networks = (self.generator, self.discriminator)
        weights = sum(weight.numel() for network in networks for weight in network.parameters())
        self.layout = training_layout(device, settings.training.precision, weights)
        for network in networks:
            network.to(device, memory_format=self.layout)
            self.processes.join(network)
        if compute.activation_checkpointing:
            recompute_activations(self.generator)
        self._training = settings.training
        self._rates = method.rates
        self._device = device
        # As tensors, so that a captured step reads the current rates. CUDA's Adam takes 32 bits; on a CPU, 64 bits give
        # the same update as a number.
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        self._current = settings.training.learning_rate
        self._learning = {
            name: torch.tensor(self.rate(name, self._current), dtype=dtype, device=device) for name in names
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.renew_optimizers(names)
        self.average = copy.deepcopy(self.generator) if settings.training.ema else None
        if compute.compile:
            self.compile()
        self.step = 0
        self.phase: int | None = None
        self.seconds = 0.0
        self.peak_mib = 0.0
        self.history: dict[str, Any] = {"rows": [], "sums": {}, "count": 0}
        self.gradients: list[dict[str, Any]] = []

    def renew_optimizers(self, names: Sequence[str]) -> None:
        """Create new Adam optimisers for these networks, without state from earlier steps."""
        betas = (self._training.beta1, self._training.beta2)
        for name in names:
            parameters = getattr(self, name).parameters()
            self.optimizers[name] = torch.optim.Adam(parameters, self._learning[name], betas, fused=True)

    def rate(self, name: str, rate: float) -> float:
        """Return the learning rate of a network when that of the training is `rate`."""
        return rate * self._rates.get(name, 1.0)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the training, for all optimisers."""
        if rate != self._current:
            for name, tensor in self._learning.items():
                tensor.fill_(self.rate(name, rate))
            self._current = rate

    def compile(self) -> None:
        """Compile both networks with torch.compile."""
        self.generator.compile()
        self.discriminator.compile()

    def begin_phase(self, method: Method, phase: Phase, resumed: bool) -> None:
        """Set the networks to a phase of the training. Unless the phase is resumed, also renew its optimisers."""
        for network in filter(None, (self.generator, self.average)):
            method.begin_phase(phase, network, self.discriminator)
        if not resumed:
            self.renew_optimizers([name for name in phase.fresh if name in self.optimizers])

    @property
    def parts(self) -> int:
        """The number of micro-batches that a batch is split into."""
        return self._training.accumulate

    def autocast(self) -> AbstractContextManager:
        """Return the context for forward passes: bf16 if the suite requests it, otherwise an empty context."""
        return autocast(self._device, self._training.precision)

    def published(self) -> nn.Module:
        """Return the generator to publish: the average of the weights if the suite requests one."""
        return self.generator if self.average is None else self.average

    def update_average(self, decay: float) -> None:
        """Move the average towards the generator; in the first steps faster, so that the initial weights fade."""
        if self.average is None:
            return
        decay = min(decay, (1 + self.step) / (10 + self.step))
        moved: tuple[list[Tensor], list[Tensor]] = [], []
        with torch.no_grad():
            weights = self.generator.state_dict()
            for name, average in self.average.state_dict().items():
                current = weights[name]
                # The vectors of spectral norm have length one, but their average does not.
                if average.is_floating_point() and not name.endswith(("._u", "._v")):
                    moved[0].append(average)
                    moved[1].append(current)
                else:
                    average.copy_(current)
            torch._foreach_lerp_(*moved, 1 - decay)

    def record_peak(self) -> None:
        """Record the peak memory so far."""
        self.peak_mib = max(self.peak_mib, process_peak_memory(self._device))

    def save(self, folder: Path, settings: RunSettings, keep: int = KEEP) -> None:
        """Write a checkpoint."""
        self.record_peak()
        state = {
            "settings": canonical_json(settings.model_dump(mode="json")),
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizers": {name: _with_numbers(optimizer.state_dict()) for name, optimizer in self.optimizers.items()},
            "step": self.step,
            "phase": self.phase,
            "seconds": self.seconds,
            "peak_mib": self.peak_mib,
            "history": self.history,
            "gradients": self.gradients,
        }
        save_checkpoint(folder, self.step, state, keep)

    def load(self, state: dict[str, Any], settings: RunSettings, folder: Path) -> None:
        """Restore the state from a checkpoint.

        Raises:
            UserError: an item is missing, or the checkpoint has other settings.

        """
        missing = sorted(_ITEMS - state.keys()) or sorted(self.optimizers.keys() - state["optimizers"].keys())
        if missing:
            raise UserError(f"the checkpoint in {folder} has no {', '.join(missing)}; remove this folder to start over")
        _check_same_settings(json.loads(state["settings"]), settings, folder)
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            for group in optimizer.param_groups:
                group.update(lr=self._learning[name], capturable=False)
        self.step, self.seconds = state["step"], state["seconds"]
        # Checkpoints of earlier versions have neither of these.
        self.phase, self.peak_mib = state.get("phase"), state.get("peak_mib", 0.0)
        self.history, self.gradients = state["history"], state["gradients"]


def _with_numbers(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimiser's state with the learning rate as a number."""
    return {**state, "param_groups": [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]}


def _check_same_settings(old: dict[str, Any], settings: RunSettings, folder: Path) -> None:
    if found := differences(old, settings.model_dump(mode="json")):
        raise UserError(
            f"the checkpoints in {folder} have other settings; remove this folder to start over:",
            *(f"{place}: {before} in the checkpoint, {now} now" for place, before, now in found),
        )
