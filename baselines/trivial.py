"""Rows that show what a number is worth: the source as it is, and the mean of the training targets."""

from msgunet.method import Method
from msgunet.registry import lazy_import, register_method

networks = lazy_import("baselines.networks")


@register_method("copy")
class Copy(Method):
    """The source, unchanged."""

    title = "copy (source)"
    reference = "trivial"
    trainable = False

    def build_generator(self):
        return networks.Identity()


@register_method("mean")
class Mean(Method):
    """The same picture for every source: the mean of all training targets, pixel by pixel."""

    title = "mean (training target)"
    reference = "trivial"
    trainable = False

    def build_generator(self):
        width, height = self.size
        return networks.Constant(3, height, width)

    def fit(self, generator, pairs):
        total = None
        for index in range(len(pairs)):
            target = pairs[index].target
            total = target.double() if total is None else total + target
        generator.picture.copy_(total / len(pairs))
