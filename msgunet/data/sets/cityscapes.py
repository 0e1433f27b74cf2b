"""Cityscapes: coloured labels to street photographs, read from the two published zip archives."""

import functools
import io
import re
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field

from msgunet.core.errors import UserError
from msgunet.data.base import DataSet, DataSetOptions, Kind, RawPair, Remote
from msgunet.data.decode import decode, decode_ids
from msgunet.data.login import site
from msgunet.data.registry import register_dataset
from msgunet.data.unpack import open_zip, read_member

_LABELS, _PHOTOS = "gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip"
_MEMBER = re.compile(r"gtFine/(train|val)/([a-z_-]+)/([a-z_-]+_\d{6}_\d{6})_gtFine_color\.png")
_IDS = {"label_ids": "labelIds", "instance_ids": "instanceIds"}


class CityscapesOptions(DataSetOptions):
    """The images prepared in addition to coloured labels and photographs."""

    ids: bool = Field(True, description="also keep label and instance ids, for methods that use classes")


@register_dataset("cityscapes")
class Cityscapes(DataSet):
    """The official training pairs, and the validation pairs for testing (the test split's labels are not published)."""

    title = "Cityscapes"
    licence = "Cityscapes licence: research only, images may not be redistributed"
    source_url = "https://www.cityscapes-dataset.com, with a free account"
    default_size = (2048, 1024)
    version = 2
    Options = CityscapesOptions

    @classmethod
    def kinds(cls, options: Any) -> tuple[Kind, Kind]:
        return "labels", "photo"

    @classmethod
    def remotes(cls, options: Any) -> tuple[Remote, ...]:
        def package(name: str, number: int, size: str, md5: str) -> Remote:
            url = f"{site()}/file-handling/?packageID={number}"
            about = f"{size}, package {number} of https://www.cityscapes-dataset.com/downloads"
            return Remote(name, (url,), about, checksum=f"md5:{md5}", login=True)

        return (
            package(_LABELS, 1, "241 MB", "4237c19de34c8a376e9ba46b495d6f66"),
            package(_PHOTOS, 3, "11 GB", "0a6e97e94b616a514066c9e2adb0c97f"),
        )

    def count(self) -> tuple[int, int]:
        return 2975, 500

    def pairs(self, work: Path) -> list[RawPair]:
        labels, photos = (open_zip(self.archives / name) for name in (_LABELS, _PHOTOS))
        existing = {*labels.namelist(), *photos.namelist()}
        pairs, unpaired = [], []
        for member in sorted(labels.namelist()):
            match = _MEMBER.fullmatch(member)
            if match is None:
                continue
            photo = f"leftImg8bit/{match[1]}/{match[2]}/{match[3]}_leftImg8bit.png"
            names = {role: member.replace("_color", f"_{kind}") for role, kind in _IDS.items() if self.options.ids}
            unpaired += [f"{member} has no {name}" for name in (photo, *names.values()) if name not in existing]
            split = "train" if match[1] == "train" else "test"
            load = functools.partial(_load, labels, member, photos, photo, names)
            pairs.append(RawPair(match[3], split, load, name=f"{member} and {photo}"))
        if unpaired:
            raise UserError(f"{len(unpaired)} images are missing in {self.archives}:", *unpaired[:10])
        return pairs


def _load(
    labels: zipfile.ZipFile, colours: str, photos: zipfile.ZipFile, photo: str, ids: dict[str, str]
) -> dict[str, Image.Image]:
    images = {
        "source": decode(io.BytesIO(read_member(labels, colours)), colours),
        "target": decode(io.BytesIO(read_member(photos, photo)), photo),
    }
    return images | {role: decode_ids(io.BytesIO(read_member(labels, name)), name) for role, name in ids.items()}
