"""MSG U-Net: the paper's generator, one PatchGAN per output scale, and the objective of equation (1)."""

from math import log2
from typing import Annotated, Any, Literal

from pydantic import Field

from msgunet.core.registry import lazy_import
from msgunet.core.settings import later
from msgunet.methods.method import Method, MethodOptions
from msgunet.methods.registry import register_method

networks = lazy_import("msgunet.methods.networks")
losses = lazy_import("msgunet.methods.losses")
norms = lazy_import("msgunet.methods.norms")

_SMALLEST_LEVEL = 4  # pixels of the shorter side at the bottom: 8x4 under 2048x1024
_SMALLEST_SCALE = 64  # pixels of the shorter side at the coarsest scale: 128x64 under 2048x1024


class MSGUNetOptions(MethodOptions):
    """The choices that the paper leaves open, and its two loss weights."""

    width: float = Field(1.0, gt=0, description="factor on the generator's channels")
    discriminator_width: float = Field(1.0, gt=0, description="factor on the discriminators' channels")
    levels: int | None = Field(
        None, ge=2, description="levels of the U-Net; by default down to 4 pixels on the shorter side"
    )
    channels: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="channels per level from full resolution down, before the width factor; default: as Pix2Pix"
    )
    odd_pixel: Literal["end", "start"] = Field("end", description="side on which 4x4 convolutions pad one extra pixel")
    sums: Literal["sum", "mean"] = Field(
        "sum", description="reduction over layers and scales in equation (1); published: sum"
    )
    adversarial: Literal["least_squares", "cross_entropy"] = Field("least_squares", description="adversarial loss")
    vgg_layers: tuple[Annotated[int, Field(ge=0, lt=16)], ...] = Field(
        tuple(range(16)), min_length=1, description="VGG-19 convolutions in the perceptual term, counted from 0"
    )
    discriminator_weight: float = Field(0.5, gt=0, description="weight of the discriminators' loss")
    generator_first: bool = Field(True, description="update the generator before the discriminators")
    init_std: float = Field(0.02, gt=0, description="standard deviation of the initial weights")
    test_statistics: Literal["running", "batch"] = Field(
        "running", description="statistics for batch norm at test time"
    )
    scales: int | None = Field(
        None, ge=1, le=15, description="input and output scales; by default down to 64 pixels on the shorter side"
    )
    intermediate_outputs: bool = Field(
        True, description="false: keep only the full-resolution output and its discriminator"
    )
    discriminators: Literal["per_scale", "joint", "full"] = later(
        "per_scale",
        "per_scale: one for each output; joint: one for all outputs, each of which enters at its resolution, as in "
        "MSG-GAN; full: one for the full-resolution output alone, while the others stay",
    )
    source_scales: Literal["all", "first"] = later(
        "all", "scales at which the source enters the generator; first: full resolution only"
    )
    skips: Literal["add", "concatenate"] = later("add", "how a skip connection joins the decoder")
    norm: Literal["batch", "instance"] = later("batch", "norm of the generator and the discriminators")
    alpha: float = Field(10.0, ge=0, description="weight of feature matching (paper: 10)")
    beta: float = Field(0.25, ge=0, description="weight of the perceptual term (paper: 0.25)")


@register_method("msgunet")
class MSGUNetMethod(Method):
    """MSG U-Net as in the paper."""

    title = "MSG U-Net"
    reference = "Laxman et al., Efficient High-Resolution Image-to-Image Translation using Multi-Scale Gradient U-Net"
    Options = MSGUNetOptions

    @property
    def generator_first(self) -> bool:
        return self.options.generator_first

    @classmethod
    def levels(cls, options: Any, size: tuple[int, int]) -> int:
        """Return the number of levels of the U-Net: 9 at 2048x1024, 8 at 512x512."""
        return options.levels or max(2, round(log2(min(size) / _SMALLEST_LEVEL)) + 1)

    @classmethod
    def scales(cls, options: Any, size: tuple[int, int]) -> int:
        """Return the number of input scales: 5 at 2048x1024, 4 at 512x512."""
        return options.scales or max(1, round(log2(min(size) / _SMALLEST_SCALE)) + 1)

    @classmethod
    def stride(cls, options: Any, size: tuple[int, int]) -> int:
        return 2 ** (cls.levels(options, size) - 1)

    @classmethod
    def problem(cls, options: Any, size: tuple[int, int]) -> str | None:
        scales, levels = cls.scales(options, size), cls.levels(options, size)
        if options.channels is not None and len(options.channels) != levels:
            return f"channels lists {len(options.channels)} levels, but the U-Net has {levels}"
        if scales >= levels:
            return f"{scales} scales need at least {scales + 1} levels, but the U-Net has {levels}"
        if min(size) >> (levels - 1) < 2:
            return f"{levels} levels reduce {min(size)} pixels to less than 2; use fewer levels"
        if options.discriminators == "joint" and (scales == 1 or not options.intermediate_outputs):
            return (
                "a joint discriminator needs outputs at several scales, but there is one; use 'discriminators: "
                "per_scale', or 'scales' of 2 or more with 'intermediate_outputs: true'"
            )
        smallest = min(size) >> (scales - 1)
        if options.discriminators == "per_scale" and smallest < 24:
            return f"the coarsest scale is {smallest} pixels high or wide, the discriminator needs 24; use fewer scales"
        if min(size) < 24:
            return f"size {size[0]}x{size[1]}: the discriminator needs at least 24 pixels on the shorter side"
        return super().problem(options, size)

    @classmethod
    def recipe(cls, options: Any, size: tuple[int, int]) -> dict[str, Any]:
        # Not published. As for the rest of the training, this follows Pix2Pix-HD.
        return {"flip": True}

    @classmethod
    def uses_perceptual(cls, options: Any) -> bool:
        return options.beta > 0

    def conditions(self) -> str:
        if self.options.norm == "instance":
            return "instance norm, the same at test time"
        kind = {"running": "running statistics", "batch": "the statistics of one image"}[self.options.test_statistics]
        return f"batch norm uses {kind} at test time"

    def widths(self) -> list[int]:
        """Return the channels per level from full resolution down; with nine or more levels, 64 occurs twice."""
        levels = self.levels(self.options, self.size)
        schedule = [64, 64, 128, 256] if levels >= 9 else [64, 128, 256]
        schedule += [512] * (levels - len(schedule))
        schedule = self.options.channels or schedule
        return [networks.scaled(channels, self.options.width) for channels in schedule[:levels]]

    def build_generator(self):
        scales = self.scales(self.options, self.size)
        names = ("intermediate_outputs", "odd_pixel", "source_scales", "skips", "norm")
        options = {name: getattr(self.options, name) for name in names}
        generator = networks.MSGUNet(self.widths(), scales, self.channels, **options)
        networks.init_normal(generator, self.options.init_std)
        return generator

    def prepare_inference(self, generator):
        super().prepare_inference(generator)
        if self.options.test_statistics == "batch":
            norms.use_batch_statistics(generator)

    def build_discriminator(self):
        options, inputs = self.options, sum(self.channels)
        scales = self.scales(options, self.size)
        filters = networks.scaled(64, options.discriminator_width)
        if options.discriminators == "joint":
            discriminator = networks.JointDiscriminator(inputs, filters, scales, options.norm)
        else:
            count = scales if options.intermediate_outputs and options.discriminators == "per_scale" else 1
            nets = [networks.PatchGAN(inputs, filters, norm=options.norm) for _ in range(count)]
            discriminator = networks.ScaleDiscriminators(nets)
        networks.init_normal(discriminator, self.options.init_std)
        return discriminator

    def generator_losses(self, discriminator, sources, targets, outputs, perceptual):
        fake = discriminator(sources, outputs)
        real = [[layer.detach() for layer in scale] for scale in discriminator(sources, targets)]
        terms = {
            "gan": self._adversarial(fake, True),
            "features": self.options.alpha * self._distance(fake, real),
        }
        if perceptual is not None:
            values = [self._perceptual(perceptual, o, t) for o, t in zip(outputs, targets, strict=True)]
            terms["perceptual"] = self.options.beta * self._over_scales(values)
        return terms

    def _adversarial(self, scales, real):
        loss = getattr(losses, self.options.adversarial)
        return self._over_scales([loss(scale[-1], real) for scale in scales])

    def _distance(self, fake, real):
        """Return the double sum over scales and layers in equation (1)."""
        return self._over_scales([self._over_layers(f, r) for f, r in zip(fake, real, strict=True)])

    def _perceptual(self, network, output, target):
        """Return one scale of the perceptual term."""
        layers = self.options.vgg_layers
        real = network(target, layers)
        count = len(real) if self.options.sums == "mean" else 1
        return losses.eager_gradient(lambda image: network.distances(image, real, layers).sum() / count, output)

    def _over_layers(self, fake, real):
        return losses.l1_sum(fake, real) / (len(fake) if self.options.sums == "mean" else 1)

    def _over_scales(self, values):
        return sum(values) / (len(values) if self.options.sums == "mean" else 1)

    def discriminator_losses(self, discriminator, sources, targets, outputs):
        fake = discriminator(sources, outputs)
        real = discriminator(sources, targets)
        return {
            "d_fake": self.options.discriminator_weight * self._adversarial(fake, False),
            "d_real": self.options.discriminator_weight * self._adversarial(real, True),
        }
