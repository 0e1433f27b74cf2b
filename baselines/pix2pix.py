"""Pix2Pix: U-Net, 70x70 PatchGAN, cross-entropy and L1 (Isola et al. 2017)."""

from math import log2
from typing import Any

from pydantic import Field

import msgunet
from msgunet import Method, MethodOptions, lazy_import, register_method

networks = lazy_import("baselines.networks")


class UNetOptions(MethodOptions):
    """Options of methods that use the U-Net of Pix2Pix."""

    width: float = Field(1.0, gt=0, description="factor on the generator's channels")
    discriminator_width: float = Field(1.0, gt=0, description="factor on the discriminator's channels")
    downsamplings: int | None = Field(
        None, ge=2, le=14, description="number of downsamplings; by default down to 1 pixel, at most 8"
    )


class Pix2PixOptions(UNetOptions):
    """Options of Pix2Pix."""

    l1: float = Field(100.0, ge=0, description="weight of the L1 term")
    dropout: float = Field(
        0.5, ge=0, lt=1, description="dropout rate in the decoder; also active at test time, as published"
    )


class UNetMethod(Method):
    """Base class of methods that use the U-Net of Pix2Pix."""

    @classmethod
    def recipe(cls, options: Any, size: tuple[int, int]) -> dict[str, Any]:
        # Published: resize to 286 pixels, crop 256, flip.
        return {"decay_from": "first", "flip": True, "jitter": round(min(size) * 30 / 256)}

    @classmethod
    def downsamplings(cls, options: Any, size: tuple[int, int]) -> int:
        """Return the number of downsamplings: 8 at 256x256."""
        return options.downsamplings or min(8, max(2, round(log2(min(size)))))

    @classmethod
    def stride(cls, options: Any, size: tuple[int, int]) -> int:
        return 2 ** cls.downsamplings(options, size)

    @classmethod
    def problem(cls, options: Any, size: tuple[int, int]) -> str | None:
        if min(size) < 24:
            return f"size {size[0]}x{size[1]}: the discriminator needs at least 24 pixels on the shorter side"
        return super().problem(options, size)

    def build_unet(self, dropout: float):
        """Return the generator, initialised as published."""
        downs = self.downsamplings(self.options, self.size)
        generator = networks.UNet(downs, self.options.width, self.channels, dropout)
        msgunet.init_normal(generator)
        return generator


@register_method("pix2pix")
class Pix2Pix(UNetMethod):
    """Pix2Pix; as published, it also uses dropout and batch statistics at test time."""

    title = "Pix2Pix"
    version = 2
    reference = "Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017"
    Options = Pix2PixOptions

    def conditions(self) -> str:
        # The U-Net has dropout in the full-width blocks above the innermost.
        dropout = "dropout and " if self.options.dropout and self.downsamplings(self.options, self.size) > 5 else ""
        return f"{dropout}batch statistics (of one image) at test time, as published"

    def build_generator(self):
        return self.build_unet(self.options.dropout)

    def build_discriminator(self):
        filters = msgunet.scaled(64, self.options.discriminator_width)
        discriminator = msgunet.ScaleDiscriminators([msgunet.PatchGAN(sum(self.channels), filters)])
        msgunet.init_normal(discriminator)
        return discriminator

    def generator_losses(self, discriminator, sources, targets, outputs, perceptual):
        return {
            "gan": msgunet.cross_entropy(discriminator(sources, outputs)[0][-1], True),
            "l1": self.options.l1 * msgunet.l1_sum(outputs, targets),
        }

    def discriminator_losses(self, discriminator, sources, targets, outputs):
        return {
            "d_fake": 0.5 * msgunet.cross_entropy(discriminator(sources, outputs)[0][-1], False),
            "d_real": 0.5 * msgunet.cross_entropy(discriminator(sources, targets)[0][-1], True),
        }

    def prepare_inference(self, generator):
        msgunet.use_batch_statistics(generator)
