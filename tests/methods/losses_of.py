"""What the losses of a method's step are computed from."""

import torch
from conftest import make_settings

from msgunet.methods.contract import built
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual


def step_losses(name, seed=0):
    """Return everything for computing the losses of a narrow method on random images.

    Returns:
        The method, its generator and discriminator, the pyramids of sources and targets, and VGG-19 or None.

    """
    torch.manual_seed(seed)
    method = build_method(make_settings("unused", name))
    generator, discriminator = method.build_generator(), built(method, "build_discriminator")
    scales = method.scales(method.options, method.size)
    sources, targets = ([torch.rand(2, 3, 64 >> k, 64 >> k) * 2 - 1 for k in range(scales)] for _ in "st")
    settings = make_settings("unused", name).perceptual
    perceptual = load_perceptual(settings, None) if settings else None
    return method, generator, discriminator, sources, targets, perceptual
