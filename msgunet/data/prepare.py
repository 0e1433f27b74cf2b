"""Turn a data set into PNG pairs of one size and a manifest."""

import hashlib
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from msgunet import registry
from msgunet.config import DataSetSettings
from msgunet.data.base import Kind, RawPair, resize
from msgunet.data.manifest import Pair, write_manifest
from msgunet.errors import UserError
from msgunet.files import atomic, read_settings


def prepare(settings_file: Path, out: Path, mirror: Path) -> Path:
    """Prepare the data set that `settings_file` (a plan's `dataset.json`) describes in the folder `out`.

    The manifest is written last: where it is, everything is.

    Raises:
        UserError: archives are missing, a picture is damaged, or a picture is in both splits.

    """
    settings = read_settings(settings_file, DataSetSettings)
    cls = registry.datasets()[settings.kind]
    size = settings.size
    dataset = cls(cls.Options.model_validate(settings.options), size, mirror)
    missing = dataset.missing()
    if missing:
        raise UserError(*missing)
    kinds = cls.kinds(dataset.options)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".unpack-") as work:
        raw = dataset.pairs(Path(work))
        _check_ids(raw)
        progress = tqdm(raw, desc=f"prepare {cls.name}", unit="pair", disable=None)
        pairs = [_prepare_pair(pair, size, kinds, out) for pair in progress]
    _check_splits(pairs, kinds)
    manifest = out / "manifest.csv"
    write_manifest(manifest, pairs)
    _remove_strangers(out, pairs)
    counts = {split: sum(pair.split == split for pair in pairs) for split in ("train", "test")}
    print(f"{cls.title}: {counts['train']} train and {counts['test']} test pairs of {size[0]}x{size[1]} in {out}")
    return manifest


def _prepare_pair(raw: RawPair, size: tuple[int, int], kinds: tuple[Kind, Kind], out: Path) -> Pair:
    paths, hashes, first = [], [], None
    for role, decoder, kind in zip(("source", "target"), (raw.source, raw.target), kinds, strict=True):
        image = decoder()
        first = first or image.size
        if image.size != first:
            raise UserError(f"{raw.name}: the source is {first[0]}x{first[1]}, the target {image.width}x{image.height}")
        image = resize(image, size, kind)
        path = out / raw.split / f"{raw.id}.{role}.png"
        _save_png(image, path)
        paths.append(str(path.relative_to(out)))
        hashes.append(hashlib.sha256(image.tobytes()).hexdigest())
    return Pair(raw.id, raw.split, *paths, *size, *first, *hashes)


def _save_png(image: Image.Image, path: Path) -> None:
    with atomic(path) as temporary:
        image.save(temporary, compress_level=4)


def _check_ids(pairs: list[RawPair]) -> None:
    if not pairs:
        raise UserError("the data set has no pairs; check its options and archives")
    seen: set[str] = set()
    twice = [pair.id for pair in pairs if pair.id in seen or seen.add(pair.id)]
    if twice:
        raise UserError(f"{len(twice)} pairs have the id of another pair: {', '.join(twice[:10])}")
    for split in ("train", "test"):
        if not any(pair.split == split for pair in pairs):
            raise UserError(f"the data set has no {split} pairs; check its options")


def _check_splits(pairs: list[Pair], kinds: tuple[Kind, Kind]) -> None:
    """No picture in both splits; photos are compared where there are any, because label pictures may well be equal."""
    of_source = "photo" not in kinds or kinds[0] == "photo"

    def key(pair: Pair) -> str:
        return pair.source_sha256 if of_source else pair.target_sha256

    train = {key(pair): pair.id for pair in pairs if pair.split == "train"}
    both = [f"{pair.id} = {train[key(pair)]}" for pair in pairs if pair.split == "test" and key(pair) in train]
    if both:
        raise UserError(f"{len(both)} test pictures are also training pictures: {', '.join(both[:10])}")


def _remove_strangers(out: Path, pairs: list[Pair]) -> None:
    """Remove pictures that an earlier, interrupted preparation left and the manifest does not name."""
    known = {out / path for pair in pairs for path in (pair.source, pair.target)}
    for split in ("train", "test"):
        for path in (out / split).iterdir():
            if path not in known:
                path.unlink()
    for folder in out.glob(".unpack-*"):
        shutil.rmtree(folder)
