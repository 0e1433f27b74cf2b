"""Rows that show what a number is worth: the source as it is, and the mean of the training targets."""

from msgunet import Method, lazy_import, register_method

networks = lazy_import("baselines.networks")
data = lazy_import("msgunet.data.pairs")


@register_method("copy")
class Copy(Method):
    """The source, unchanged; where the target has other channels, their mean in each of them."""

    title = "copy (source)"
    trainable = False

    def build_generator(self):
        return networks.Identity(*self.channels)


@register_method("mean")
class Mean(Method):
    """The same image for every source: the mean of all training targets, pixel by pixel."""

    title = "mean (training target)"
    trainable = False

    def build_generator(self):
        width, height = self.size
        return networks.Constant(self.channels[1], height, width)

    def fit(self, generator, pairs):
        total = sum(pairs[index].target.double() for index in range(len(pairs)))
        generator.image.copy_(data.normalise(total / len(pairs), pairs.formats[1].range))
