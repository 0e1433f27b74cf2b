"""Phases and learning rate, epoch by epoch."""

from collections.abc import Sequence

from msgunet.config import TrainingSettings
from msgunet.method import Phase


class Schedule:
    """The phases of a training one after another: constant learning rate, then linear towards zero, epoch by epoch.

    In epoch k of d decay epochs, counted from 0, the rate is 1 - (k + 1) / (d + 1) of the full one for Pix2Pix and
    1 - k / d for Pix2Pix-HD, as in their published code (`TrainingSettings.decay_from`).
    """

    def __init__(self, phases: Sequence[Phase], training: TrainingSettings) -> None:
        self._phases, self._training = phases, training
        self.length = sum(phase.length for phase in phases)

    def at(self, epoch: int) -> tuple[Phase, int, float]:
        """The phase of an epoch, the epoch within it, and the learning rate."""
        for phase in self._phases:
            if epoch < phase.length:
                lead = 1 if self._training.decay_from == "first" else 0
                falling = max(0, epoch - phase.epochs + lead)
                factor = 1 - falling / (phase.decay_epochs + lead) if falling else 1
                return phase, epoch, self._training.learning_rate * factor
            epoch -= phase.length
        raise IndexError("the training has ended")
