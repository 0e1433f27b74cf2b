"""Many images at once: as one after the other, and stopped in the middle of the pipeline."""

import contextlib
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_image
from interruptible import slowly
from PIL import Image
from test_translate import translate, untrained

import msgunet
from msgunet.core.pipeline import most_in_flight
from msgunet.core.settings import ImageFormat
from msgunet.data.pairs import bytes_on, normalise, to_pixels
from msgunet.methods.generator import load_generator
from msgunet.translation import files
from msgunet.translation.files import translate_files


def put(folder: Path, count: int, side: int = 40) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{i:03d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        make_image(i, side + i % 3, side).save(path)
    return paths


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_outputs_are_those_of_one_image_after_the_other(tmp_path, jobs):
    """Pix2Pix uses dropout, whose seed is the name of the image."""
    path, images = untrained(tmp_path, "pix2pix"), put(tmp_path / "in", 9)
    translate(path, tmp_path / "in", out=tmp_path / "out", more=["--jobs", jobs])
    model = msgunet.load(path, device="cpu")
    for image in images:
        expected = np.asarray(model.translate(image))
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / image.name)), expected)


def test_problems_and_notes_are_in_the_order_of_the_images(tmp_path, capsys, monkeypatch):
    path, images = untrained(tmp_path), put(tmp_path / "in", 12)
    for i in (1, 4, 9):
        images[i].write_bytes(b"no image")
    for i in (3, 7):
        Image.new("RGBA", (40, 40), (1, 2, 3, 4)).save(images[i])
    real = msgunet.Model.read_source

    def read_source(model, source):
        # The earlier, the later.
        time.sleep(0.02 * (12 - int(source.stem)))
        return real(model, source)

    monkeypatch.setattr(msgunet.Model, "read_source", read_source)
    translate(path, tmp_path / "in", out=tmp_path / "out", rc=2, more=["--jobs", "6"])
    lines = capsys.readouterr().err.splitlines()
    errors = [line.split(":")[1].strip() for line in lines if line.startswith("error: ") and "not an image" in line]
    assert errors == [str(images[i]) for i in (1, 4, 9)]
    assert lines[-1] == "error: 9 of 12 images were translated; the others are listed above"
    [note] = [line for line in lines if "alpha channel" in line]
    assert note.startswith(f"{images[3]} (and 1 other file): ")


def test_images_in_flight_are_bounded(tmp_path, monkeypatch):
    model = msgunet.load(untrained(tmp_path), device="cpu")
    images = put(tmp_path / "in", 20)
    make_image(0, 900, 900).save(tmp_path / "in" / "010b.png")
    lock, now, counts, pixels, seen = threading.Lock(), set(), [], [], {}
    real_read, real_write = model.read_source, files._write

    def read_source(path):
        with lock:
            now.add(path)
            counts.append(len(now))
            pixels.append(sum(np.prod(Image.open(one).size) for one in now))
            seen[path.stem] = len(now)
        return real_read(path)

    def write(job, output):
        time.sleep(0.01)
        real_write(job, output)

    def problem(job, error):
        with lock:
            now.discard(job.source)
        return []

    monkeypatch.setattr(model, "read_source", read_source)
    monkeypatch.setattr(files, "_write", write)
    monkeypatch.setattr(files, "_problem", problem)
    assert translate_files(model, [tmp_path / "in"], tmp_path / "a", jobs=3) == len(images) + 1
    assert 3 < max(counts) <= most_in_flight(3)
    # Three images of 42x40 pixels with three values in source and output each, of which a decoder holds copies.
    monkeypatch.setattr(model.memory, "in_flight", lambda: 3 * 42 * 40 * 6 * 4)
    counts.clear(), pixels.clear()
    translate_files(model, [tmp_path / "in"], tmp_path / "b", jobs=8)
    assert max(counts) == 3
    assert seen["010b"] == 1, "a large image is alone"
    assert sorted(pixels)[-2] <= 3 * 42 * 40


def test_an_image_that_may_need_tiles_is_alone_and_the_limit_holds_back_a_share(tmp_path):
    model = msgunet.load(untrained(tmp_path), device="cpu")
    memory, size = model.memory, (512, 512)
    weight = 512 * 512 * 6 * 4
    free = memory.available()
    assert memory.weight(size, tiled=False) == weight
    assert memory.in_flight() == pytest.approx(free / 8, rel=0.1)
    assert memory.weight(None, tiled=False) == float("inf")
    needed = memory._bytes(512, 512)
    memory.available = lambda: needed
    assert memory.weight(size, tiled=False) == float("inf")
    assert memory.weight(size, tiled=True) == weight
    assert memory.tile_side(512, 512, 0) < 512


def test_ctrl_c_leaves_only_finished_files_and_resume_makes_the_others(tmp_path):
    path, images = untrained(tmp_path), put(tmp_path / "in", 30)
    out = tmp_path / "out"
    arguments = ["translate", str(path), str(tmp_path / "in"), "--out", str(out), "--device", "cpu"]
    command = slowly("msgunet.translation.files", *arguments, "--threads", "1", "--jobs", "3")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with contextlib.closing(process.stdout) as lines:
        for _ in range(4):
            assert lines.readline() == "half written\n"
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.wait(60) == 130, errors
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors
    finished = sorted(file.name for file in out.iterdir())
    assert 4 <= len(finished) <= 4 + 2 * most_in_flight(3)
    assert not list(out.glob(".tmp-*"))
    before = {name: (out / name).read_bytes() for name in finished}
    translate(path, tmp_path / "in", out=out, more=["--resume"])
    model = msgunet.load(path, device="cpu")
    for image in images:
        expected = np.asarray(model.translate(image))
        assert np.array_equal(np.asarray(Image.open(out / image.name)), expected)
    assert all((out / name).read_bytes() == content for name, content in before.items()), "not translated again"


def test_a_full_disk_stops_at_the_first_image_that_does_not_fit(tmp_path, small_disk, capsys):
    path = untrained(tmp_path)
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    for i in range(20):
        Image.fromarray(noise).save(tmp_path / "in" / f"{i:02d}.bmp")
    out = small_disk / "out"
    translate(path, tmp_path / "in", out=out, rc=2, more=["--jobs", "3", "--keep-format"])
    written = sorted(file.name for file in out.iterdir())
    # 2 MB hold four images of 480 kB, and several that are not finished share the rest.
    assert written in (["00.bmp", "01.bmp", "02.bmp"], ["00.bmp", "01.bmp", "02.bmp", "03.bmp"])
    assert not list(out.glob(".tmp-*"))
    errors = capsys.readouterr().err
    assert errors.count("error: ") == 1
    assert "No space left on device; free disk space" in errors
    for name in written:
        assert Image.open(out / name).size == (400, 400)
        Image.open(out / name).load()


def test_an_error_of_the_disk_is_that_of_the_first_image_and_stops_the_others(tmp_path, monkeypatch, capsys):
    path = untrained(tmp_path)
    put(tmp_path / "in", 30)
    real, tried = files._write, []

    def write(job, output):
        tried.append(job.source.stem)
        if job.source.stem in ("004", "005"):
            time.sleep(0.05 * (job.source.stem == "004"))
            raise OSError(28, "No space left on device", str(job.target))
        real(job, output)

    monkeypatch.setattr(files, "_write", write)
    translate(path, tmp_path / "in", out=tmp_path / "out", rc=2, more=["--jobs", "4"])
    assert f"error: {tmp_path}/out/004.png: No space left on device; free disk space\n" in capsys.readouterr().err
    assert len(tried) <= 5 + most_in_flight(4)
    assert {f"{i:03d}.png" for i in range(4)} <= {file.name for file in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(("sizes", "searches"), [([(40, 40)] * 3, True), ([(40, 40), (40, 41)], False)])
def test_cudnn_searches_for_algorithms_only_if_all_images_have_one_size(tmp_path, monkeypatch, sizes, searches):
    jobs = []
    for i, size in enumerate(sizes):
        jobs.append(SimpleNamespace(source=tmp_path / f"{i}.png"))
        make_image(0, *size).save(jobs[-1].source)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    msgunet.load(untrained(tmp_path), device="cpu")
    assert not torch.backends.cudnn.benchmark, "a model can be given images of any size"
    with files._searched(SimpleNamespace(device=torch.device("cuda")), jobs):
        assert torch.backends.cudnn.benchmark is searches
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("values", [(0, 255), (10, 200), (0, 65535), (1000, 40000)])
def test_bytes_on_a_device_give_the_values_of_a_cpu(tmp_path, values):
    """A GPU looks normalised values up in a table, which a CPU computes."""
    given = ImageFormat(channels=1, range=values)
    generator = load_generator(untrained(tmp_path, source_format=given, target_format=given), "cpu")
    pixels = np.arange(2**given.bits).reshape(64, -1, 1).astype(given.dtype)
    expected = generator.sources(pixels)
    clipped = (np.clip(pixels.astype(np.float64), *values) - values[0]) / (values[1] - values[0]) * 2 - 1
    assert expected[0].permute(0, 2, 3, 1)[0].numpy() == pytest.approx(clipped, abs=1e-6)
    generator._normalised = normalise(torch.arange(2**given.bits), values)
    for ours, theirs in zip(generator.sources(pixels), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(bytes_on(torch.device("cpu"), pixels)[0, 0].int(), torch.from_numpy(pixels[..., 0].astype(int)))
    assert np.array_equal(to_pixels(expected[0][0], given), np.clip(pixels, *values))
