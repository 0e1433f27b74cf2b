"""Aerial photographs to maps (Isola et al. 2017), from `maps.tar.gz`."""

import functools
import re
import shutil
import tarfile
import zlib
from pathlib import Path

from PIL import Image

from msgunet.data.base import DataSet, RawPair, decode, missing_archives
from msgunet.errors import UserError
from msgunet.registry import register_dataset

_ARCHIVE = "maps.tar.gz"
_MEMBER = re.compile(r"maps/(train|val)/(\d+)\.jpg")


@register_dataset("maps")
class Maps(DataSet):
    """Each picture holds the photograph on the left and the map on the right."""

    title = "Aerial Images to Maps"
    licence = "Google Maps imagery, published by the authors of Pix2Pix for research"
    source_url = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/maps.tar.gz"

    def missing(self) -> list[str]:
        return missing_archives(self.mirror, {_ARCHIVE: f"250 MB, from {self.source_url}"}, "maps")

    def pairs(self, work: Path) -> list[RawPair]:
        found = []
        try:
            with tarfile.open(self.mirror / _ARCHIVE) as archive:
                for member in archive:
                    match = _MEMBER.fullmatch(member.name)
                    if match is None or not member.isfile():
                        continue
                    split = "train" if match[1] == "train" else "test"
                    # The pattern has no room for another folder, and only the content of plain files is taken.
                    file = work / f"{match[1]}_{match[2]}.jpg"
                    with file.open("wb") as out:
                        shutil.copyfileobj(archive.extractfile(member), out)
                    halves = (functools.partial(_half, file, member.name, left) for left in (True, False))
                    found.append(RawPair(f"{match[1]}_{int(match[2]):04d}", split, *halves, name=member.name))
                # tarfile ends without a word at a damaged header; the rest holds gzip's checksum.
                while archive.fileobj.read(1 << 20):
                    pass
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise UserError(f"{self.mirror / _ARCHIVE}: not a whole archive ({error}); download it again") from error
        return sorted(found, key=lambda pair: pair.id)


def _half(file: Path, name: str, left: bool) -> Image.Image:
    image = decode(file, name)
    middle = image.width // 2
    return image.crop((0, 0, middle, image.height) if left else (middle, 0, 2 * middle, image.height))
