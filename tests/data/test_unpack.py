"""Malicious archives: each raises an error that names it, and nothing is written outside its folder."""

import gzip
import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from conftest import dataset_settings, make_image

from msgunet.core.errors import UserError
from msgunet.data import unpack
from msgunet.data.prepare import prepare

CITYSCAPES = ("gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip")


def jpeg() -> bytes:
    out = io.BytesIO()
    make_image(0, 32, 16).save(out, "JPEG")
    return out.getvalue()


def tar_with(path: Path, *members: tarfile.TarInfo, data: bytes = b"") -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name in ("maps/train/1.jpg", "maps/val/1.jpg"):
            valid = tarfile.TarInfo(name)
            valid.size = len(jpeg())
            archive.addfile(valid, io.BytesIO(jpeg()))
        for member in members:
            archive.addfile(member, io.BytesIO(data) if member.isreg() else None)


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    return member


ATTACKS = {
    "parent": (tar_member("../outside.jpg"), "points outside the folder"),
    "parent inside": (tar_member("maps/train/../../../outside.jpg"), "points outside the folder"),
    "absolute": (tar_member("/tmp/outside.jpg"), "points outside the folder"),
    "symbolic link": (tar_member("maps/train/2.jpg", tarfile.SYMTYPE, "/etc/passwd"), "neither a file nor a folder"),
    "hard link": (tar_member("maps/train/2.jpg", tarfile.LNKTYPE, "../../etc/passwd"), "neither a file nor a folder"),
    "device": (tar_member("maps/train/2.jpg", tarfile.CHRTYPE), "neither a file nor a folder"),
    "pipe": (tar_member("maps/train/2.jpg", tarfile.FIFOTYPE), "neither a file nor a folder"),
    "twice": (tar_member("maps/train/1.jpg"), "occurs twice"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_in_a_tar_are_refused(tmp_path, name):
    member, reason = ATTACKS[name]
    tar_with(tmp_path / "maps.tar.gz", member)
    with pytest.raises(UserError, match=rf"maps\.tar\.gz: .*{reason}"):
        prepare(dataset_settings("maps", (16, 16)), tmp_path / "inside" / "o", tmp_path)
    assert {p.name for p in (tmp_path / "inside" / "o").rglob("*")} == {".lock", "dataset.json"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inside", "maps.tar.gz"]


def test_the_same_archive_without_an_attack_is_accepted(tmp_path):
    tar_with(tmp_path / "maps.tar.gz", tar_member("maps", tarfile.DIRTYPE))
    with pytest.raises(UserError, match="are also training images"):
        prepare(dataset_settings("maps", (16, 16)), tmp_path / "o", tmp_path)


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("../outside.png", 0, "points outside the folder"),
        ("/tmp/outside.png", 0, "points outside the folder"),
        ("C:/outside.png", 0, "points outside the folder"),
        ("..\\outside.png", 0, "points outside the folder"),
        ("gtFine/link.png", stat.S_IFLNK | 0o777, "neither a file nor a folder"),
        ("gtFine/device", stat.S_IFCHR | 0o666, "neither a file nor a folder"),
    ],
)
def test_attacks_in_a_zip_are_refused(tmp_path, name, mode, reason):
    for archive in CITYSCAPES:
        with zipfile.ZipFile(tmp_path / archive, "w") as file:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr = name, mode << 16
            file.writestr(info, b"x")
    with pytest.raises(UserError, match=reason):
        prepare(dataset_settings("cityscapes", (16, 16)), tmp_path / "o", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*CITYSCAPES, "o"])


def test_decompression_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    zeros = 200_000_000
    tar_with(tmp_path / "maps.tar.gz", tar_member("maps/train/2.jpg", size=zeros), data=bytes(zeros))
    assert (tmp_path / "maps.tar.gz").stat().st_size < 1_000_000
    copied = []
    monkeypatch.setattr(
        unpack.shutil, "copyfileobj", lambda source, out, _: copied.append(out.write(source.read(100_000)))
    )
    with pytest.raises(UserError, match="would unpack to more than"):
        prepare(dataset_settings("maps", (16, 16)), tmp_path / "o", tmp_path)
    assert len(copied) == 2, "only the two images before the bomb"
    for archive in CITYSCAPES:
        with zipfile.ZipFile(tmp_path / archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("gtFine/zeros", bytes(zeros))
    with pytest.raises(UserError, match="would unpack to more than"):
        prepare(dataset_settings("cityscapes", (16, 16)), tmp_path / "o2", tmp_path)


def test_a_zip_with_a_false_size_unpacks_no_more_than_that_size(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("gtFine/zeros", bytes(100_000_000))
    raw = path.read_bytes().replace(struct.pack("<I", 100_000_000), struct.pack("<I", 100))
    path.write_bytes(raw)
    tracemalloc.start()
    with pytest.raises(UserError, match="zeros is damaged"):
        unpack.read_member(unpack.open_zip(path), "gtFine/zeros")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_header_that_claims_a_large_size_is_not_read(tmp_path):
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 50_000_000
    with gzip.open(tmp_path / "maps.tar.gz", "wb", 1) as file:
        file.write(long.tobuf(tarfile.GNU_FORMAT) + b"a" * long.size)
    with pytest.raises(UserError, match=r"a header claims 50,000,\d+ bytes"):
        prepare(dataset_settings("maps", (16, 16)), tmp_path / "o", tmp_path)


def test_other_compression_methods_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("gtFine/a.png", b"x")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        unpack.open_zip(tmp_path / "x.zip")


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MAX_MEMBERS", 3)
    tar_with(tmp_path / "maps.tar.gz", *(tar_member(f"maps/{i}") for i in range(3)))
    with pytest.raises(UserError, match="more than 3 members"):
        prepare(dataset_settings("maps", (16, 16)), tmp_path / "o", tmp_path)
