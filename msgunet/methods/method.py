"""The base class of methods: networks, losses and a recipe under one name.

A method's file declares its options and recipe, builds its networks and computes its losses. The loop in
`msgunet.training` does the rest. The file must not import torch (use `lazy_import` for modules with networks),
because the Snakefile imports it to read versions and options.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from msgunet.core.settings import PerceptualSettings, Strict, TrainingSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from msgunet.data.pairs import PairDataset
    from msgunet.methods.vgg19 import VGG19Features


@dataclass(frozen=True)
class Phase:
    """A part of a training with its own learning rate schedule; it resets the optimisers named in `fresh`."""

    name: str
    epochs: int
    decay_epochs: int
    fresh: tuple[str, ...] = ("generator", "discriminator")

    @property
    def length(self) -> int:
        """The total number of epochs."""
        return self.epochs + self.decay_epochs


class MethodOptions(Strict):
    """Base class of the options of a method."""


class Method:
    """Base class of all methods.

    Class attributes:
        name: set by `register_method`.
        title: its name in tables.
        reference: the publication.
        version: must increase whenever the method's results would change; its runs then train again.
        Options: the model of the method's options.
        trainable: False for methods that only fit buffers to the training images (`fit`).
        generator_first: update the generator before the discriminator, on the same outputs (Pix2Pix-HD's order); can
            be a property.
        rates: factors on the learning rate, by network (`generator`, `discriminator`); 1 by default.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str] = ""
    version: ClassVar[int] = 1
    Options: ClassVar[type[MethodOptions]] = MethodOptions
    trainable: ClassVar[bool] = True
    generator_first: ClassVar[bool] = False
    rates: ClassVar[dict[str, float]] = {}

    def __init__(self, options: MethodOptions, size: tuple[int, int], channels: tuple[int, int] = (3, 3)) -> None:
        """`size`: width and height of the networks' images in pixels; `channels`: of source and target."""
        self.options: Any = options
        self.size = size
        self.channels = channels

    @classmethod
    def stride(cls, options: Any, size: tuple[int, int]) -> int:
        """Return the number that both sides of an image must be multiples of."""
        return 1

    @classmethod
    def problem(cls, options: Any, size: tuple[int, int]) -> str | None:
        """Return why networks of this size cannot be built, and a size that works; None if they can."""
        width, height = size
        stride = cls.stride(options, size)
        if width % stride or height % stride:
            good = tuple(max(stride, round(side / stride) * stride) for side in size)
            return f"size {width}x{height} is not divisible by {stride}; {good[0]}x{good[1]} works"
        return None

    @classmethod
    def scales(cls, options: Any, size: tuple[int, int]) -> int:
        """Return the number of scales of the source that the generator accepts."""
        return 1

    @classmethod
    def recipe(cls, options: Any, size: tuple[int, int]) -> dict[str, Any]:
        """Return the published training settings that differ from the defaults of `TrainingSettings`."""
        return {}

    @classmethod
    def uses_perceptual(cls, options: Any) -> bool:
        """Return whether the losses use VGG-19 features."""
        return False

    @classmethod
    def has_discriminator(cls, options: Any) -> bool:
        """Return whether there is a discriminator; by default, if the method defines `build_discriminator`."""
        return cls.build_discriminator is not Method.build_discriminator

    def conditions(self) -> str:
        """Return the facts about this method, besides its settings, that readers of a table need."""
        return ""

    def build_generator(self) -> "nn.Module":
        """Return a new, initialised generator: pyramids in and out (see `msgunet/methods/networks.py`)."""
        raise NotImplementedError

    def build_training_generator(self) -> "nn.Module":
        """Return the generator including parts that only training needs; by default the same generator."""
        return self.build_generator()

    def build_discriminator(self) -> "nn.Module":
        """Return a new, initialised discriminator: (sources, images) in, layer outputs per scale out.

        A method without one defines neither this nor `discriminator_losses`.
        """
        raise NotImplementedError

    def generator_losses(
        self,
        discriminator: "nn.Module",
        sources: Sequence["Tensor"],
        targets: Sequence["Tensor"],
        outputs: Sequence["Tensor"],
        perceptual: "VGG19Features | None",
    ) -> dict[str, "Tensor"]:
        """Return the weighted terms of the generator's loss by name; their sum is minimised.

        Call `discriminator` like the network; a method without one does not use it. With `generator_first`, its outputs
        are shared with `discriminator_losses`: do not change them in place.
        """
        raise NotImplementedError

    def discriminator_losses(
        self,
        discriminator: "nn.Module",
        sources: Sequence["Tensor"],
        targets: Sequence["Tensor"],
        outputs: Sequence["Tensor"],
    ) -> dict[str, "Tensor"]:
        """Return the weighted terms of the discriminator's loss by name; no gradient reaches the generator."""
        raise NotImplementedError

    def phases(self, training: TrainingSettings) -> list[Phase]:
        """Return the phases of a training in order; by default one, with the suite's epochs."""
        return [Phase("", training.epochs, training.decay_epochs)]

    def begin_phase(self, phase: Phase, generator: "nn.Module", discriminator: "nn.Module") -> None:
        """Freeze, unfreeze or switch parts; called before a phase and after a resume within it."""

    def view(self, phase: Phase, images: Sequence["Tensor"], kind: str) -> list["Tensor"]:
        """Return the scales of a pyramid that a phase uses, by default all; `kind` is `photo` or `labels`."""
        return list(images)

    def published_state(self, state: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
        """Return the part of a generator's state to publish, without parts that only training needs."""
        return state

    def fit(self, generator: "nn.Module", pairs: "PairDataset") -> None:
        """Set the generator's buffers from the training pairs (uint8), if the method is not trainable."""

    def prepare_inference(self, generator: "nn.Module") -> None:
        """Prepare a loaded generator for evaluation; by default, switch it to evaluation mode."""
        generator.eval()


def schedule_label(phases: Sequence[Phase], minutes: float | None = None) -> str:
    """Return the length of a training for the conditions: constant + falling learning rate, by phase."""
    if minutes is None:
        return ", ".join(f"{phase.epochs} + {phase.decay_epochs} epochs {phase.name}".strip() for phase in phases)
    per_epoch = minutes / sum(phase.length for phase in phases)
    return ", ".join(
        f"{per_epoch * phase.epochs:.3g} + {per_epoch * phase.decay_epochs:.3g} minutes {phase.name}".strip()
        for phase in phases
    )


def perceptual_label(settings: PerceptualSettings | None) -> str:
    """Return the description of the perceptual weights for the conditions."""
    if settings is None:
        return "none"
    if settings.weights == "imagenet":
        return "VGG-19, ImageNet weights"
    return f"VGG-19 of width {settings.width:g}, untrained (random weights)"
