"""What a method is: networks, losses and a recipe under one name.

A method's file declares its options and recipe, builds its networks and computes its losses; the loop in
`msgunet.training` does the rest. The file must import without torch (use `lazy_import` for the modules with networks),
because the Snakefile reads versions and options from it.
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
    """A part of a training with a learning rate schedule of its own; the `fresh` optimisers start afresh with it."""

    name: str
    epochs: int
    decay_epochs: int
    fresh: tuple[str, ...] = ("generator", "discriminator")

    @property
    def length(self) -> int:
        """Epochs in all."""
        return self.epochs + self.decay_epochs


class MethodOptions(Strict):
    """Base of every method's own settings."""


class Method:
    """Base class of all methods.

    Class attributes:
        name: set by `register_method`.
        title: how tables call it.
        reference: the publication.
        version: goes up whenever the method's results would change; its runs then train again.
        Options: model of the method's own settings.
        trainable: False for methods that only fit something to the training images (`fit`).
        generator_first: update the generator before the discriminator, on the same outputs (Pix2Pix-HD's order); may be
            a property.
        rates: factors on the learning rate, by network (`generator`, `discriminator`); 1 where there is none.
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
        """`size`: width and height in pixels that the networks work at; `channels`: of source and target."""
        self.options: Any = options
        self.size = size
        self.channels = channels

    @classmethod
    def stride(cls, options: Any, size: tuple[int, int]) -> int:
        """Both sides of an image must be multiples of this."""
        return 1

    @classmethod
    def problem(cls, options: Any, size: tuple[int, int]) -> str | None:
        """Why networks of this size cannot be built, with a size that works; None where they can."""
        width, height = size
        stride = cls.stride(options, size)
        if width % stride or height % stride:
            good = tuple(max(stride, round(side / stride) * stride) for side in size)
            return f"size {width}x{height} is not divisible by {stride}; {good[0]}x{good[1]} works"
        return None

    @classmethod
    def scales(cls, options: Any, size: tuple[int, int]) -> int:
        """How many resolutions of the source the generator takes."""
        return 1

    @classmethod
    def recipe(cls, options: Any, size: tuple[int, int]) -> dict[str, Any]:
        """Published training settings, where they differ from the defaults of `TrainingSettings`."""
        return {}

    @classmethod
    def uses_perceptual(cls, options: Any) -> bool:
        """Whether the losses read VGG-19 features."""
        return False

    def conditions(self) -> str:
        """What a reader of a table must know about this method beside its settings."""
        return ""

    def build_generator(self) -> "nn.Module":
        """A new, initialised generator: pyramids in and out (see `msgunet/methods/networks.py`)."""
        raise NotImplementedError

    def build_training_generator(self) -> "nn.Module":
        """The generator with what only training needs; by default the same."""
        return self.build_generator()

    def build_discriminator(self) -> "nn.Module":
        """A new, initialised discriminator: (sources, images) in, layer outputs per scale out."""
        raise NotImplementedError

    def generator_losses(
        self,
        discriminator: "nn.Module",
        sources: Sequence["Tensor"],
        targets: Sequence["Tensor"],
        outputs: Sequence["Tensor"],
        perceptual: "VGG19Features | None",
    ) -> dict[str, "Tensor"]:
        """The weighted terms of the generator's loss by name; their sum is minimised.

        `discriminator` is called like the network. With `generator_first` its answers are shared with
        `discriminator_losses`: do not change them in place.
        """
        raise NotImplementedError

    def discriminator_losses(
        self,
        discriminator: "nn.Module",
        sources: Sequence["Tensor"],
        targets: Sequence["Tensor"],
        outputs: Sequence["Tensor"],
    ) -> dict[str, "Tensor"]:
        """The weighted terms of the discriminators' loss by name; nothing of them reaches the generator."""
        raise NotImplementedError

    def phases(self, training: TrainingSettings) -> list[Phase]:
        """The parts of a training in their order; by default one, with the suite's epochs."""
        return [Phase("", training.epochs, training.decay_epochs)]

    def begin_phase(self, phase: Phase, generator: "nn.Module", discriminator: "nn.Module") -> None:
        """Called before a phase and after a resume within it: freeze, unfreeze, switch parts."""

    def view(self, phase: Phase, images: Sequence["Tensor"], kind: str) -> list["Tensor"]:
        """What of a pyramid, of sources or targets (`photo` or `labels`), a phase works on; by default all of it."""
        return list(images)

    def published_state(self, state: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
        """What of a generator's state is published; parts that only training needs are left out here."""
        return state

    def fit(self, generator: "nn.Module", pairs: "PairDataset") -> None:
        """For methods that are not trainable: set the generator's buffers from the training pairs (uint8)."""

    def prepare_inference(self, generator: "nn.Module") -> None:
        """Put a loaded generator into the state in which it is measured; by default plain evaluation mode."""
        generator.eval()


def schedule_label(phases: Sequence[Phase], minutes: float | None = None) -> str:
    """How long a training is, as conditions name it: constant + falling learning rate, phase by phase."""
    if minutes is None:
        return ", ".join(f"{phase.epochs} + {phase.decay_epochs} epochs {phase.name}".strip() for phase in phases)
    one = minutes / sum(phase.length for phase in phases)
    return ", ".join(
        f"{one * phase.epochs:.3g} + {one * phase.decay_epochs:.3g} minutes {phase.name}".strip() for phase in phases
    )


def perceptual_label(settings: PerceptualSettings | None) -> str:
    """The perceptual weights, as conditions name them."""
    if settings is None:
        return "none"
    if settings.weights == "imagenet":
        return "VGG-19, ImageNet weights"
    return f"VGG-19 of width {settings.width:g}, untrained (random weights)"
