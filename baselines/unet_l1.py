"""The control: the generator of Pix2Pix or of MSG U-Net, trained by L1 alone, without a discriminator.

What a method gains over its own generator in this row is due to its other losses.
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

import msgunet
from baselines.pix2pix import Pix2Pix
from msgunet import Method, MethodOptions, register_method
from msgunet.methods.msgunet import MSGUNetMethod

_GENERATORS = {"pix2pix": (Pix2Pix, ("downsamplings", "dropout")), "msgunet": (MSGUNetMethod, ("levels", "scales"))}


class UNetL1Options(MethodOptions):
    """Options of the control: which generator, and options of that generator."""

    generator: Literal["pix2pix", "msgunet"] = Field(
        "pix2pix", description="method from which the generator, its norms at test time and the recipe are taken"
    )
    width: float = Field(1.0, gt=0, description="factor on the generator's channels")
    downsamplings: int | None = Field(None, ge=2, le=14, description="of Pix2Pix's generator; default as there")
    dropout: float | None = Field(None, ge=0, lt=1, description="of Pix2Pix's generator; default as there")
    levels: int | None = Field(None, ge=2, description="of MSG U-Net's generator; default as there")
    scales: int | None = Field(None, ge=1, le=15, description="of MSG U-Net's generator; default as there")

    @model_validator(mode="after")
    def _of_this_generator(self) -> Self:
        others = {name for _, names in _GENERATORS.values() for name in names} - {*_GENERATORS[self.generator][1]}
        if given := sorted(name for name in others if getattr(self, name) is not None):
            raise ValueError(f"the generator of {self.generator} does not have the option {' and '.join(given)}")
        return self


def _of(options: Any) -> tuple[type[Method], MethodOptions]:
    """Return the method whose generator is trained, and its options."""
    method, names = _GENERATORS[options.generator]
    given = {name: getattr(options, name) for name in ("width", *names) if getattr(options, name) is not None}
    return method, method.Options(**given)


@register_method("unet_l1")
class UNetL1(Method):
    """A U-Net trained by L1 alone: the sum over its scales of the mean absolute difference."""

    title = "U-Net, L1 alone"
    Options = UNetL1Options

    @classmethod
    def stride(cls, options: Any, size: tuple[int, int]) -> int:
        method, theirs = _of(options)
        return method.stride(theirs, size)

    @classmethod
    def scales(cls, options: Any, size: tuple[int, int]) -> int:
        method, theirs = _of(options)
        return method.scales(theirs, size)

    @classmethod
    def problem(cls, options: Any, size: tuple[int, int]) -> str | None:
        method, theirs = _of(options)
        return method.problem(theirs, size)

    @classmethod
    def recipe(cls, options: Any, size: tuple[int, int]) -> dict[str, Any]:
        method, theirs = _of(options)
        return method.recipe(theirs, size)

    def _method(self) -> Method:
        method, theirs = _of(self.options)
        return method(theirs, self.size, self.channels)

    def conditions(self) -> str:
        method = self._method()
        return f"the generator of {method.title} without a discriminator; {method.conditions()}"

    def build_generator(self):
        return self._method().build_generator()

    def generator_losses(self, discriminator, sources, targets, outputs, perceptual):
        return {"l1": msgunet.l1_sum(outputs, targets)}

    def prepare_inference(self, generator):
        self._method().prepare_inference(generator)
