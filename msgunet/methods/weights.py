"""Published weights that methods and metrics use, separate from the networks so that fetching them imports no torch."""

from collections.abc import Mapping
from pathlib import Path

from msgunet.core.paths import WEIGHTS as WEIGHTS_FOLDER
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


def missing(keys: Mapping[str, Path], what: str) -> list[str]:
    """Return in one line which weights are not where they are expected, and how to get them; an empty list if none.

    Args:
        keys: the path of each file by its key in `DataSettings`.
        what: what needs them.

    """
    absent = {key: path for key, path in keys.items() if not path.is_file()}
    if not absent:
        return []
    files = "; ".join(
        f"data.{key} is {path}, which does not exist ({WEIGHTS[key].about}: {WEIGHTS[key].urls[0]})"
        for key, path in absent.items()
    )
    return [
        f"weights of {what}: {files}; 'msgunet fetch {' '.join(absent)}' downloads them into {WEIGHTS_FOLDER}, where "
        "they are found unless the suite's data names others; where there is no network, copy them there"
    ]
