"""PAN: perceptual adversarial networks (Wang et al. 2018), a reconstruction.

The discriminator's hidden layers define a distance between output and target. The generator minimises this distance;
the discriminator keeps it above a margin.
"""

from pydantic import Field

import msgunet
from baselines.pix2pix import UNetMethod, UNetOptions
from msgunet import lazy_import, register_method

networks = lazy_import("baselines.networks")


class PANOptions(UNetOptions):
    """Options of PAN."""

    weights: tuple[float, float, float, float] = Field(
        (5.0, 1.5, 1.5, 5.0), description="weights of the distances at discriminator layers 1, 4, 6 and 8"
    )
    perceptual: float = Field(1.0, ge=0, description="weight of the total distance relative to the adversarial term")
    margin: float = Field(1.0, gt=0, description="distance above which the discriminator's distance term is zero")


@register_method("pan")
class PAN(UNetMethod):
    """PAN: the distance trains the generator and, below the margin, also the discriminator."""

    title = "PAN"
    version = 3
    reference = "Wang et al., Perceptual Adversarial Networks for Image-to-Image Transformation, TIP 2018"
    Options = PANOptions

    def conditions(self) -> str:
        return "reconstructed from the publication; batch norm uses running statistics at test time"

    def build_generator(self):
        return self.build_unet(0.0)

    def build_discriminator(self):
        filters = msgunet.scaled(64, self.options.discriminator_width)
        discriminator = networks.PANDiscriminator(sum(self.channels), filters)
        msgunet.init_normal(discriminator)
        return discriminator

    def distance(self, fake, real):
        """Return, for each image, the weighted L1 distance between hidden features of output and target."""
        pairs = zip(self.options.weights, fake[:-1], real[:-1], strict=True)
        return sum(weight * msgunet.l1_per_image(f, r) for weight, f, r in pairs)

    def generator_losses(self, discriminator, sources, targets, outputs, perceptual):
        fake = discriminator(sources, outputs)[0]
        real = discriminator(sources, targets)[0]
        return {
            "gan": msgunet.cross_entropy(fake[-1], True),
            "perceptual": self.options.perceptual * self.distance(fake, real).mean(),
        }

    def discriminator_losses(self, discriminator, sources, targets, outputs):
        fake = discriminator(sources, outputs)[0]
        real = discriminator(sources, targets)[0]
        return {
            "d_fake": 0.5 * msgunet.cross_entropy(fake[-1], False),
            "d_real": 0.5 * msgunet.cross_entropy(real[-1], True),
            # Per image, so that the loss of a batch is the mean of its images' losses.
            "d_margin": (self.options.margin - self.distance(fake, real)).clamp(min=0).mean(),
        }
