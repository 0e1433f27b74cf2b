"""Published weights that methods read, apart from their networks, so that fetching them loads no torch."""

from msgunet.data.base import Remote

VGG19 = Remote(
    "vgg19-dcbb9e9d.pth",
    ("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",),
    "548 MB, torchvision's ImageNet weights of VGG-19",
    checksum="sha256:dcbb9e9d",
)
