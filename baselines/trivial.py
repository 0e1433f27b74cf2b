"""Trivial methods for reference: the unchanged source, and the mean of the training targets."""

from msgunet import Method, lazy_import, register_method

networks = lazy_import("baselines.networks")
data = lazy_import("msgunet.data.pairs")


@register_method("copy")
class Copy(Method):
    """The source unchanged; if the target has a different number of channels, each is the mean of the source's."""

    title = "copy (source)"
    trainable = False

    def build_generator(self):
        return networks.Identity(*self.channels)


@register_method("mean")
class Mean(Method):
    """The same image for every source: the pixel-wise mean of all training targets."""

    title = "mean (training target)"
    trainable = False

    def build_generator(self):
        width, height = self.size
        return networks.Constant(self.channels[1], height, width)

    def fit(self, generator, pairs):
        total = sum(pairs[index].target.double() for index in range(len(pairs)))
        generator.picture.copy_(data.normalise(total / len(pairs), pairs.formats[1].range))
