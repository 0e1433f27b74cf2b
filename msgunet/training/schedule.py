"""The phases and the learning rate of a training, by epoch."""

import sys
from collections.abc import Sequence

from msgunet.core.settings import TrainingSettings
from msgunet.methods.method import Phase


class Schedule:
    """The phases of a training in order. In each, the learning rate is constant, then decays linearly towards zero.

    The rate changes once per epoch. In epoch k of d decay epochs, counted from 0, it is 1 - (k + 1) / (d + 1) of the
    full rate for Pix2Pix and 1 - k / d for Pix2Pix-HD, as in their published code (`TrainingSettings.decay_from`).

    A time-limited training (`TrainingSettings.minutes`) goes through the same epochs. Each epoch gets an equal share of
    the time, whatever the number of steps.
    """

    def __init__(self, phases: Sequence[Phase], training: TrainingSettings, per_epoch: int) -> None:
        self._phases, self._training, self._per_epoch = phases, training, per_epoch
        self._length = sum(phase.length for phase in phases)

    @property
    def epochs(self) -> int:
        """The number of epochs to draw images for; practically unlimited in a time-limited training."""
        return self._length if self._training.minutes is None else sys.maxsize

    def done(self, step: int, seconds: float) -> float:
        """Return the share of the training that is complete after `step` steps and `seconds` seconds, from 0 to 1."""
        if self._training.minutes is not None:
            return min(1.0, seconds / (60 * self._training.minutes))
        total = self._length * self._per_epoch
        return step / total if total else 1.0

    def at(self, step: int, seconds: float) -> tuple[int, Phase, float]:
        """Return the phase's number, the phase and the learning rate after `step` steps and `seconds` seconds.

        Raises:
            IndexError: the training has ended.

        """
        epoch = step // self._per_epoch
        if self._training.minutes is not None:
            epoch = int(self._length * self.done(step, seconds))
        for number, phase in enumerate(self._phases):
            if epoch < phase.length:
                lead = 1 if self._training.decay_from == "first" else 0
                falling = max(0, epoch - phase.epochs + lead)
                factor = 1 - falling / (phase.decay_epochs + lead) if falling else 1
                return number, phase, self._training.learning_rate * factor
            epoch -= phase.length
        raise IndexError("the training has ended")
