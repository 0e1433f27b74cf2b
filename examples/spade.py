"""SPADE, semantic image synthesis with spatially-adaptive normalization (Park et al. 2019), as a custom method.

The following is as published in sections 3 and 4 and appendix A. If the text is silent or differs from its code, this
file follows the code.

- Networks: see `spade_networks.py`.
- Losses: hinge loss, averaged over two scales; 10 x feature matching; 10 x VGG-19 at five layers with weights
  1/32 … 1, on images in [-1, 1] without normalisation.
- Training: Adam with betas 0 and 0.9 (0.999 in the text, 0.9 in the code); learning rates 1e-4 for the generator and
  4e-4 for the discriminators; 100 + 100 epochs; images are flipped.
- Spectral norm: on the blocks' convolutions and the discriminators' inner convolutions, as in the code (on all layers
  in the text).

The following differs:

- Each pixel gets the class whose colour in `palette` is nearest to the source. The published input is label ids and, on
  Cityscapes, one more channel with the edges of instances, which the colours do not contain.
- The discriminators train on the same outputs as the generator. The published code generates new outputs for them after
  the generator's update.
- Real images and outputs pass through the discriminators one after the other. Spectral norm therefore does two power
  iteration steps in each training step, instead of one for each network's update.
- The number of upsamplings at other sizes is chosen here. There is no encoder, so each source has one output.
- The batch size is 1 unless the suite sets it: the published batches need eight GPUs.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

import msgunet
from msgunet import Method, MethodOptions, UserError, lazy_import, register_method

networks = lazy_import("spade_networks")

_VGG_LAYERS = (0, 2, 4, 8, 12)  # convolutions of relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
_VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
_BOTTOM = 16  # pixels of the longer side at the lowest resolution: 16x8 for 512x256

# The colours of Cityscapes' `_gtFine_color.png` files. Five classes are black. Pole groups have the colour of poles,
# and licence plates the colour of cars.
_CITYSCAPES = (
    *((0, 0, 0), (111, 74, 0), (81, 0, 81), (128, 64, 128), (244, 35, 232), (250, 170, 160), (230, 150, 140)),
    *((70, 70, 70), (102, 102, 156), (190, 153, 153), (180, 165, 180), (150, 100, 100), (150, 120, 90)),
    *((153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60)),
    *((255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 0, 90), (0, 0, 110), (0, 80, 100), (0, 0, 230)),
    *((119, 11, 32),),
)

Byte = Annotated[int, Field(ge=0, le=255)]
Palette = Annotated[tuple[tuple[Byte, Byte, Byte], ...], Field(min_length=2, max_length=256)]


class SpadeOptions(MethodOptions):
    """Options of SPADE."""

    palette: Literal["cityscapes", "none"] | Palette = Field(
        "cityscapes", description="colours of the classes; none: use the source unchanged, for photographs"
    )
    width: float = Field(1.0, gt=0, description="factor on the generator's channels")
    discriminator_width: float = Field(1.0, gt=0, description="factor on the discriminators' channels")
    upsamplings: Literal[5, 6, 7] | None = Field(
        None,
        description="published: 5, 6 (more) or 7 (most); by default, enough to leave 16 pixels (at least 5)",
    )
    discriminators: int = Field(2, ge=1, description="number of discriminators, one per scale")
    features: float = Field(10.0, ge=0, description="weight of feature matching")
    perceptual: float = Field(10.0, ge=0, description="weight of the VGG-19 term")
    normalise_vgg: bool = Field(False, description="normalise images for VGG-19 as in its training; published: false")


@register_method("spade")
class SpadeMethod(Method):
    """SPADE without an encoder."""

    title = "SPADE"
    reference = "Park et al., Semantic Image Synthesis with Spatially-Adaptive Normalization, CVPR 2019"
    Options = SpadeOptions
    generator_first = True
    # The two time-scale update rule (Heusel et al. 2017).
    rates = {"generator": 1.0, "discriminator": 4.0}

    @classmethod
    def upsamplings(cls, options: Any, size: tuple[int, int]) -> int:
        """Return the number of upsamplings: 5 up to 512 pixels on the longer side, 6 up to 1024, 7 beyond."""
        return options.upsamplings or next((n for n in (5, 6) if max(size) >> n <= _BOTTOM), 7)

    @classmethod
    def stride(cls, options: Any, size: tuple[int, int]) -> int:
        return 2 ** cls.upsamplings(options, size)

    @classmethod
    def problem(cls, options: Any, size: tuple[int, int]) -> str | None:
        smallest = min(size) >> (options.discriminators - 1)
        if smallest < 16:
            return f"the coarsest discriminator sees {smallest} pixels but needs 16; use fewer discriminators"
        return super().problem(options, size)

    @classmethod
    def recipe(cls, options: Any, size: tuple[int, int]) -> dict[str, Any]:
        return {"learning_rate": 1e-4, "beta1": 0.0, "beta2": 0.9, "flip": True}

    @classmethod
    def uses_perceptual(cls, options: Any) -> bool:
        return options.perceptual > 0

    def conditions(self) -> str:
        palette = self.options.palette
        classes = f"{len(self.palette)} classes by nearest colour" if self.palette else "the unchanged source"
        return (
            f"discriminators at four times the learning rate; {classes}{' (Cityscapes)' * (palette == 'cityscapes')}, "
            "without instance edges; batch norm uses running statistics at test time"
        )

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """The colours of the classes; empty if the source is used unchanged."""
        return {"cityscapes": _CITYSCAPES, "none": ()}.get(self.options.palette, self.options.palette)

    def _checked_palette(self) -> tuple[tuple[int, int, int], ...]:
        if self.palette and self.channels[0] != 3:
            raise UserError(
                f"palette: sources have {self.channels[0]} channels instead of colours; set palette to none"
            )
        return self.palette

    def build_generator(self):
        options = self.options
        filters, hidden = (msgunet.scaled(count, options.width) for count in (64, 128))
        ups = self.upsamplings(options, self.size)
        return networks.SpadeGenerator(self._checked_palette(), filters, hidden, ups, self.channels)

    def build_discriminator(self):
        filters = msgunet.scaled(64, self.options.discriminator_width)
        palette = self._checked_palette()
        return networks.SpadeDiscriminators(palette, filters, self.options.discriminators, self.channels)

    def generator_losses(self, discriminator, sources, targets, outputs, perceptual):
        fake = discriminator(sources, outputs)
        real = [[layer.detach() for layer in scale] for scale in discriminator(sources, targets)]
        matching = sum(msgunet.l1_sum(f[:-1], r[:-1]) for f, r in zip(fake, real, strict=True)) / len(fake)
        terms = {
            "gan": sum(-msgunet.upcast(scale[-1]).mean() for scale in fake) / len(fake),
            "features": self.options.features * matching,
        }
        if perceptual is not None:
            target_features = perceptual(targets[0], _VGG_LAYERS, self.options.normalise_vgg)

            def distance(image):
                features = perceptual(image, _VGG_LAYERS, self.options.normalise_vgg)
                layers = zip(_VGG_WEIGHTS, features, target_features, strict=True)
                return sum(w * msgunet.l1_sum([f], [t]) for w, f, t in layers)

            terms["perceptual"] = self.options.perceptual * msgunet.eager_gradient(distance, outputs[0])
        return terms

    def discriminator_losses(self, discriminator, sources, targets, outputs):
        fake = discriminator(sources, outputs)
        real = discriminator(sources, targets)
        return {
            "d_fake": sum(hinge(scale[-1], False) for scale in fake) / len(fake),
            "d_real": sum(hinge(scale[-1], True) for scale in real) / len(real),
        }


def hinge(scores: Any, real: bool) -> Any:
    """Return the mean of max(0, 1 - score) for real images or max(0, 1 + score) for outputs (Lim and Ye 2017)."""
    scores = msgunet.upcast(scores)
    return (1 - scores if real else 1 + scores).clamp_min(0).mean()
