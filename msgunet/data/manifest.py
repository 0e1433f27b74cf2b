"""The manifest of a prepared data set: one row per pair."""

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from msgunet.core.errors import UserError
from msgunet.core.files import write_csv


@dataclass(frozen=True)
class Pair:
    """One prepared pair. Paths are relative to the manifest, sizes are in pixels, hashes are of the decoded pixels.

    `extras` lists further images of the pair as `name=hash`, separated by spaces. For example, the image `label_ids` of
    the pair `x` is the file `x.label_ids.png`.
    """

    id: str
    split: str
    source: str
    target: str
    width: int
    height: int
    source_width: int
    source_height: int
    source_sha256: str
    target_sha256: str
    extras: str = ""

    def files(self) -> dict[str, str]:
        """Return the files of the pair, each with the hash of its pixels."""
        extras = (extra.split("=") for extra in self.extras.split())
        others = {image_path(self.split, self.id, role): digest for role, digest in extras}
        return {self.source: self.source_sha256, self.target: self.target_sha256, **others}


def image_path(split: str, name: str, role: str, suffix: str = ".png") -> str:
    """Return the path of an image of the pair with the id `name`, relative to the manifest."""
    return f"{split}/{name}.{role}{suffix}"


def larger_folder(folder: Path, size: tuple[int, int]) -> Path:
    """Return the folder of a data set's training images at a larger size, next to the data set's own folder."""
    return folder.with_name("{}-train{}x{}".format(folder.name, *size))


def write_manifest(path: Path, pairs: list[Pair]) -> None:
    """Write `pairs` as CSV, in the given order."""
    write_csv(path, [asdict(pair) for pair in pairs])


def read_manifest(path: Path, split: str | None = None) -> list[Pair]:
    """Return the pairs of a manifest, either of one split or of all.

    Raises:
        UserError: there is no manifest, or it has no pairs of the split.

    """
    if not path.is_file():
        settings = path.with_name("dataset.json")
        raise UserError(
            f"there is no manifest at {path}; prepare the data set first: msgunet prepare --settings {settings} "
            f"--out {path.parent}"
        )
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = {f.name for f in fields(Pair) if f.type is int}
    pairs = [Pair(**{k: int(v) if k in numbers else v for k, v in row.items()}) for row in rows]
    pairs = [pair for pair in pairs if split in (None, pair.split)]
    if not pairs:
        raise UserError(f"{path} has no {split or ''} pairs")
    return pairs


def steps_per_epoch(count: int, batch: int) -> int:
    """Return the number of full batches in `count` pairs, at least one."""
    return max(1, count // batch)
