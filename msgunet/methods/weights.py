"""Published weights that methods and metrics use, separate from the networks so that fetching them imports no torch."""

from pathlib import Path

from msgunet.data.base import Remote

VGG19 = Remote(
    "vgg19-dcbb9e9d.pth",
    ("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",),
    "548 MB, torchvision's ImageNet weights of VGG-19",
    checksum="sha256:dcbb9e9d",
)
VGG16 = Remote(
    "vgg16-397923af.pth",
    ("https://download.pytorch.org/models/vgg16-397923af.pth",),
    "528 MB, torchvision's ImageNet weights of VGG-16",
    checksum="sha256:397923af",
)
# The authors' files. The hashes are those of the copies in two packages on PyPI: lpips 0.1.4, DISTS-pytorch 0.1, and
# torchmetrics 1.9.0, which has both.
_TORCHMETRICS = "https://raw.githubusercontent.com/Lightning-AI/torchmetrics/v1.9.0/src/torchmetrics/functional/image"
LPIPS = Remote(
    "lpips-vgg-a78928a0.pth",
    (
        "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
        f"{_TORCHMETRICS}/lpips_models/vgg.pth",
    ),
    "7 kB, the authors' linear layers of LPIPS, version 0.1, for VGG-16",
    size=7289,
    checksum="sha256:a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
)
DISTS = Remote(
    "dists-f5e65c96.pt",
    (
        "https://raw.githubusercontent.com/dingkeyan93/DISTS/master/DISTS_pytorch/weights.pt",
        f"{_TORCHMETRICS}/dists_models/weights.pt",
    ),
    "12 kB, the authors' weights of DISTS",
    size=12288,
    checksum="sha256:f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
)
# By their key in `DataSettings`.
WEIGHTS = {"vgg19": VGG19, "vgg16": VGG16, "lpips": LPIPS, "dists": DISTS}


def missing(key: str, path: Path) -> str:
    """Return that weights are not where they are expected, and how to get them."""
    remote = WEIGHTS[key]
    return (
        f"weights not found: {path} ({remote.about}); 'msgunet fetch {key}' downloads them from {remote.urls[0]}; "
        f"without a network, save that file there, or name it in data.{key}"
    )
