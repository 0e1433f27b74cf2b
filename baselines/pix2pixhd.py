"""Pix2Pix-HD: a global generator, optionally with a local enhancer (Wang et al. 2018)."""

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

import msgunet
from msgunet import Method, MethodOptions, Phase, lazy_import, register_method

networks = lazy_import("baselines.networks")
data = lazy_import("msgunet.data.pairs")

_VGG_LAYERS = (0, 2, 4, 8, 12)  # convolutions of relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
_COARSE, _FROZEN = "coarse", "with the global part frozen"
_VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


class Pix2PixHDOptions(MethodOptions):
    """Options of Pix2Pix-HD."""

    width: float = Field(1.0, gt=0, description="factor on the generator's channels")
    discriminator_width: float = Field(1.0, gt=0, description="factor on the discriminators' channels")
    generator: Literal["auto", "global", "local"] = Field(
        "auto", description="local: with one local enhancer; auto: local if 2048 or more pixels wide, as published"
    )
    downsamplings: int = Field(
        4, ge=1, le=14, description="downsamplings of the global generator; 3 gives the paper's 3.32 TFLOP"
    )
    blocks: int = Field(9, ge=0, le=100, description="residual blocks of the global generator")
    discriminators: int | None = Field(
        None, ge=1, le=8, description="number of discriminators; by default 2, or 3 if 2048 or more pixels wide"
    )
    coarse_epochs: int | None = Field(
        None,
        ge=0,
        description="epochs of the global generator alone, at half the size (local only); by default twice 'epochs'",
    )
    coarse_decay_epochs: int | None = Field(
        None,
        ge=0,
        description="decay epochs of the coarse phase; by default twice 'decay_epochs'; no coarse phase if both are 0",
    )
    freeze_epochs: int | None = Field(
        None,
        ge=0,
        description="number of first 'epochs' with the global part frozen; by default a tenth of the phase",
    )
    features: float = Field(10.0, ge=0, description="weight of feature matching")
    perceptual: float = Field(10.0, ge=0, description="weight of the VGG-19 term")
    normalise_vgg: bool = Field(False, description="normalise images for VGG-19 as in its training; published: false")


@register_method("pix2pixhd")
class Pix2PixHD(Method):
    """Pix2Pix-HD without instance maps."""

    title = "Pix2Pix-HD"
    reference = (
        "Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs, CVPR 2018"
    )
    version = 2
    Options = Pix2PixHDOptions
    generator_first = True

    @classmethod
    def discriminators(cls, options: Any, size: tuple[int, int]) -> int:
        """Return the number of discriminators, one per scale."""
        return options.discriminators or (3 if size[0] >= 2048 else 2)

    @classmethod
    def local(cls, options: Any, size: tuple[int, int]) -> bool:
        """Return whether the generator has a local enhancer."""
        return options.generator == "local" or (options.generator == "auto" and size[0] >= 2048)

    @classmethod
    def recipe(cls, options: Any, size: tuple[int, int]) -> dict[str, Any]:
        # The published script for the enhancer trains 100 epochs on top of the global generator's 200.
        shorter = {"epochs": 50, "decay_epochs": 50} if cls.local(options, size) else {}
        return {"flip": True, **shorter}

    @classmethod
    def stride(cls, options: Any, size: tuple[int, int]) -> int:
        return 2 ** (options.downsamplings + cls.local(options, size))

    @classmethod
    def problem(cls, options: Any, size: tuple[int, int]) -> str | None:
        local, count = cls.local(options, size), cls.discriminators(options, size)
        if local and count < 2:
            return "the local enhancer needs at least 2 discriminators, since the coarse phase uses all but the first"
        if min(size) < 2 * cls.stride(options, size):
            return f"{options.downsamplings} downsamplings reduce {min(size)} pixels to less than 2; use fewer"
        smallest = min(size) >> (count - 1)
        if smallest < 16:
            return f"the coarsest discriminator sees {smallest} pixels but needs 16; use fewer discriminators"
        return super().problem(options, size)

    @classmethod
    def uses_perceptual(cls, options: Any) -> bool:
        return options.perceptual > 0

    def conditions(self) -> str:
        part = "local enhancer" if self.local(self.options, self.size) else "global generator alone"
        return f"{part}; instance norm, the same at test time"

    def phases(self, training):
        options = self.options
        if not self.local(options, self.size):
            return super().phases(training)
        configured = (options.coarse_epochs, options.coarse_decay_epochs)
        default = (2 * training.epochs, 2 * training.decay_epochs)
        coarse = Phase(_COARSE, *(b if a is None else a for a, b in zip(configured, default, strict=True)))
        frozen = options.freeze_epochs
        if frozen is None:
            frozen = round((training.epochs + training.decay_epochs) / 10)
        frozen = min(frozen, training.epochs) if coarse.length else 0
        fine = Phase("fine", training.epochs - frozen, training.decay_epochs)
        if not frozen:
            return [coarse, fine]
        # As published, only the generator's optimiser is reset when the global part is unfrozen.
        return [coarse, Phase(_FROZEN, frozen, 0), replace(fine, fresh=("generator",))]

    def begin_phase(self, phase, generator, discriminator):
        if not self.local(self.options, self.size):
            return
        generator.coarse_only = phase.name == _COARSE
        discriminator.first = int(phase.name == _COARSE)
        generator.coarse.requires_grad_(phase.name != _FROZEN)

    def view(self, phase, images, kind):
        # The result equals images loaded at half the size.
        return [data.halve(images[0], kind)] if phase.name == _COARSE else list(images)

    def published_state(self, state):
        return {key: value for key, value in state.items() if not key.startswith("coarse_head.")}

    def build_training_generator(self):
        return self._build(head=True)

    def build_generator(self):
        return self._build(head=False)

    def _build(self, head: bool):
        options = self.options
        if self.local(options, self.size):
            filters = msgunet.scaled(32, options.width)
            generator = networks.LocalEnhancer(
                filters, options.downsamplings, options.blocks, channels=self.channels, head=head
            )
        else:
            filters = msgunet.scaled(64, options.width)
            generator = networks.GlobalGenerator(filters, options.downsamplings, options.blocks, self.channels)
        msgunet.init_normal(generator, biases=False)
        return generator

    def build_discriminator(self):
        filters = msgunet.scaled(64, self.options.discriminator_width)
        count = self.discriminators(self.options, self.size)
        inputs = sum(self.channels)
        nets = [msgunet.PatchGAN(inputs, filters, norm="instance", padding=2) for _ in range(count)]
        discriminator = msgunet.PooledDiscriminators(nets)
        msgunet.init_normal(discriminator, biases=False)
        return discriminator

    def generator_losses(self, discriminator, sources, targets, outputs, perceptual):
        fake = discriminator(sources, outputs)
        real = [[layer.detach() for layer in scale] for scale in discriminator(sources, targets)]
        # The published weights: 4 divided by the number of compared layers, and the mean over scales.
        compared = [(f[:-1], r[:-1]) for f, r in zip(fake, real, strict=True)]
        matching = sum(4 / len(f) * msgunet.l1_sum(f, r) for f, r in compared) / len(compared)
        terms = {
            "gan": sum(msgunet.least_squares(scale[-1], True) for scale in fake),
            "features": self.options.features * matching,
        }
        if perceptual is not None:
            target_features = perceptual(targets[0], _VGG_LAYERS, self.options.normalise_vgg)

            def distance(image):
                layers = perceptual.distances(image, target_features, _VGG_LAYERS, self.options.normalise_vgg)
                return sum(w * layer for w, layer in zip(_VGG_WEIGHTS, layers, strict=True))

            terms["perceptual"] = self.options.perceptual * msgunet.eager_gradient(distance, outputs[0])
        return terms

    def discriminator_losses(self, discriminator, sources, targets, outputs):
        fake = discriminator(sources, outputs)
        real = discriminator(sources, targets)
        return {
            "d_fake": 0.5 * sum(msgunet.least_squares(scale[-1], False) for scale in fake),
            "d_real": 0.5 * sum(msgunet.least_squares(scale[-1], True) for scale in real),
        }
