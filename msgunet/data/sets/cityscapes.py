"""Cityscapes: coloured labels to street photographs, read from the two published zip archives."""

import functools
import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

from msgunet.data.base import DataSet, Kind, RawPair, decode, missing_archives
from msgunet.errors import UserError
from msgunet.registry import register_dataset

_LABELS, _PHOTOS = "gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip"
_MEMBER = re.compile(r"gtFine/(train|val)/([a-z_-]+)/([a-z_-]+_\d{6}_\d{6})_gtFine_color\.png")


@register_dataset("cityscapes")
class Cityscapes(DataSet):
    """The official training pairs, and the validation pairs for testing (the test split's labels are not published)."""

    title = "Cityscapes"
    licence = "Cityscapes licence: research only, pictures may not be passed on"
    source_url = "https://www.cityscapes-dataset.com, with a free account"

    @classmethod
    def kinds(cls, options: Any) -> tuple[Kind, Kind]:
        return "labels", "photo"

    def missing(self) -> list[str]:
        wanted = {
            _LABELS: f"241 MB, package 1 of {self.source_url}",
            _PHOTOS: f"11 GB, package 3 of {self.source_url}",
        }
        return missing_archives(self.mirror, wanted, "cityscapes")

    def pairs(self, work: Path) -> list[RawPair]:
        try:
            labels, photos = (zipfile.ZipFile(self.mirror / name) for name in (_LABELS, _PHOTOS))
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{self.mirror}: not a whole archive ({error}); download it again") from error
        there = set(photos.namelist())
        found, lonely = [], []
        for member in sorted(labels.namelist()):
            match = _MEMBER.fullmatch(member)
            if match is None:
                continue
            photo = f"leftImg8bit/{match[1]}/{match[2]}/{match[3]}_leftImg8bit.png"
            if photo not in there:
                lonely.append(member)
                continue
            split = "train" if match[1] == "train" else "test"
            decoders = functools.partial(_read, labels, member), functools.partial(_read, photos, photo)
            found.append(RawPair(match[3], split, *decoders, name=f"{member} and {photo}"))
        if lonely:
            raise UserError(f"{len(lonely)} label pictures have no photograph in {_PHOTOS}: {', '.join(lonely[:10])}")
        return found


def _read(archive: zipfile.ZipFile, member: str) -> Image.Image:
    try:
        data = archive.read(member)
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        raise UserError(f"{archive.filename}: {member} is damaged ({error}); download the archive again") from error
    return decode(io.BytesIO(data), member)
