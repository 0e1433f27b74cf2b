"""Published weights that methods use, separate from the networks so that fetching them does not import torch."""

from msgunet.data.base import Remote

VGG19 = Remote(
    "vgg19-dcbb9e9d.pth",
    ("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",),
    "548 MB, torchvision's ImageNet weights of VGG-19",
    checksum="sha256:dcbb9e9d",
)
