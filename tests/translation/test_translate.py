"""Translating images of any size with a published generator: files, tiles, memory, and the Python side."""

import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import METHOD_OF, TRAINABLE, make_image, make_settings
from PIL import Image

import msgunet
from msgunet.cli.main import main
from msgunet.core.errors import OutOfMemory, UserError
from msgunet.core.settings import ImageFormat
from msgunet.data.images import read
from msgunet.device.measuring import memory_mib
from msgunet.evaluation.evaluate import EvaluationSettings, evaluate
from msgunet.methods.generator import save_generator
from msgunet.methods.registry import build_method
from msgunet.translation.tiling import blend, ramp, starts


def untrained(folder, name="msgunet", **changes):
    """Publish an untrained generator of a narrow method."""
    settings = make_settings("unused", name, **changes)
    method = build_method(settings)
    path = folder / f"{name}.safetensors"
    save_generator(path, method.published_state(method.build_generator().state_dict()), settings)
    return path


def translate(model, *images, out, rc=0, more=()):
    assert main(["translate", str(model), *map(str, images), "--out", str(out), "--device", "cpu", *more]) == rc


@pytest.mark.parametrize("size", [(1237, 811), (1, 1), (5, 300), (64, 64)], ids=str)
def test_an_image_of_any_size_keeps_its_size(tmp_path, size):
    model = untrained(tmp_path)
    make_image(0, *size).save(tmp_path / "odd.png")
    translate(model, tmp_path / "odd.png", out=tmp_path / "out")
    with Image.open(tmp_path / "out" / "odd.png") as image:
        assert (image.size, image.mode) == (size, "RGB")


@pytest.mark.parametrize("name", TRAINABLE)
def test_outputs_for_test_images_are_those_that_were_evaluated(trained_runs, tmp_path, compute, name):
    """This includes methods with dropout, or with the statistics of one image, at test time."""
    run = trained_runs / name
    evaluate(run / "run.json", run / "generator.safetensors", tmp_path, EvaluationSettings(), compute, None)
    model = msgunet.load(run / "generator.safetensors", device="cpu")
    for i in (8, 9):
        output = model.translate(Image.open(trained_runs / f"data/test/p{i:02d}.source.png"), name=f"p{i:02d}")
        assert np.array_equal(np.asarray(output), read(tmp_path / "predictions" / f"p{i:02d}.png", "x"))


@pytest.mark.parametrize("scale", [0, 1])
def test_outputs_at_all_scales(tmp_path, scale):
    model = msgunet.load(untrained(tmp_path), device="cpu")
    assert model.scales == 2
    assert model.translate(make_image(0, 75, 43), scale).size == [(75, 43), (38, 22)][scale]
    with pytest.raises(UserError, match="scale 2: msgunet has outputs at scales 0 to 1"):
        model.translate(make_image(0, 75, 43), 2)


def test_folders_and_names_are_kept_and_every_readable_image_is_translated(tmp_path, capsys):
    model, photos = untrained(tmp_path), tmp_path / "photos"
    for name in ("a.png", "trip/b.jpg", "trip/é ü.webp"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        make_image(0, 70, 50).save(photos / name)
    make_image(0, 30, 40).convert("L").save(photos / "grey.bmp")
    make_image(0, 30, 40).convert("RGBA").save(photos / "alpha.png")
    (photos / "cut.jpg").write_bytes((photos / "trip/b.jpg").read_bytes()[:-200])
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(photos / "deep.png")
    translate(model, photos, out=tmp_path / "out", rc=2)
    errors = capsys.readouterr().err
    for text in ("cut.jpg: the image is damaged", "deep.png: the image has mode I;16", "5 of 7 images were translated"):
        assert text in errors
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.png", "alpha.png", "grey.png", "trip/b.png", "trip/é ü.png"]
    translate(model, photos / "trip", out=tmp_path / "kept", more=["--keep-format"])
    for name in ("b.jpg", "é ü.webp"):
        with Image.open(tmp_path / "kept" / name) as image, Image.open(photos / "trip" / name) as source:
            assert (image.format, image.size) == (source.format, source.size)


def test_outputs_in_the_folder_of_the_sources_are_not_sources(tmp_path):
    model = untrained(tmp_path)
    make_image(0, 30, 30).save(tmp_path / "a.png")
    for _ in range(2):
        translate(model, tmp_path, out=tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]


def test_an_image_that_its_format_cannot_hold_is_reported_and_the_others_are_written(tmp_path, capsys):
    model = untrained(tmp_path)
    make_image(0, 30, 30).save(tmp_path / "a.webp")
    make_image(0, 30, 30).save(tmp_path / "b.jpg")
    wide = Image.new("RGB", (16_400, 8))
    wide.save(tmp_path / "wide.png")
    (tmp_path / "wide.png").rename(tmp_path / "wide.webp")
    paths = [tmp_path / name for name in ("wide.webp", "a.webp", "b.jpg")]
    translate(model, *paths, out=tmp_path / "out", rc=2, more=["--keep-format"])
    assert "2 of 3 images were translated" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.webp", "b.jpg"]


def test_thumbnails_are_no_larger_than_a_tile(tmp_path, monkeypatch):
    model = msgunet.load(untrained(tmp_path, "pix2pix"), device="cpu")
    seen = []
    real = model._generator.sources
    monkeypatch.setattr(model._generator, "sources", lambda pixels: seen.append(pixels.shape) or real(pixels))
    model.translate(make_image(0, 1500, 120), tile=128)
    assert max(height * width for height, width, _ in seen) <= 128 * 128


def test_resume_keeps_existing_outputs(tmp_path, capsys):
    model = untrained(tmp_path)
    for name in "ab":
        make_image(0, 30, 30).save(tmp_path / f"{name}.png")
    images, out = [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out"
    translate(model, images[0], out=out)
    (out / "a.png").write_bytes(b"mine")
    translate(model, *images, out=out, more=["--resume"])
    assert (out / "a.png").read_bytes() == b"mine"
    assert (out / "b.png").is_file()
    assert "1 image translated to" in capsys.readouterr().out
    translate(model, *images, out=out)
    assert (out / "a.png").read_bytes() != b"mine"


def test_all_problems_are_reported_before_the_first_image(tmp_path, capsys):
    model = untrained(tmp_path)
    for name in ("x/a.png", "y/a.png", "z/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_image(0, 30, 30).save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / name for name in ("x", "y/a.png", "z", "empty", "nothing.png")]
    translate(model, *paths, out=tmp_path / "z", rc=2)
    errors = capsys.readouterr().err
    for text in (
        "y/a.png and {0}/x/a.png would both become {0}/z/a.png",
        "z/b.png would overwrite a source image",
        "empty: no images in or below this folder",
        "nothing.png: no such file or folder",
    ):
        assert text.format(tmp_path) in errors
    assert sorted(p.name for p in (tmp_path / "z").iterdir()) == ["b.png"]
    translate(tmp_path / "x/a.png", paths[0], out=tmp_path / "out", rc=2)
    assert "a.png: not a readable generator" in capsys.readouterr().err
    translate(untrained(tmp_path, "mean"), paths[0], out=tmp_path / "out", rc=2)
    assert "outputs the same image for every source" in capsys.readouterr().err


def test_outputs_of_sixteen_bit_grey_are_sixteen_bit_grey(tmp_path):
    grey = ImageFormat(channels=1, range=(0, 65535))
    model = untrained(tmp_path, source_format=grey, target_format=grey)
    pixels = np.linspace(0, 65535, 90 * 70).reshape(70, 90).astype(np.uint16)
    for name in ("scan.png", "scan2.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
        translate(model, tmp_path / name, out=tmp_path / "out", more=["--keep-format"])
        output = Image.open(tmp_path / "out" / name)
        assert (output.mode, output.size) == ("I;16", (90, 70))
        array = msgunet.load(model, device="cpu").translate(pixels)
        assert np.array_equal(np.asarray(output), array[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    expected = msgunet.load(model, device="cpu").translate(np.rot90(pixels, -1))[..., 0]
    output = msgunet.load(model, device="cpu").translate(Image.open(tmp_path / "turned.png"))
    assert np.array_equal(np.asarray(output), expected)
    with pytest.raises(UserError, match=r"translates 16-bit grey: shape \(height, width, 1\) and type uint16"):
        msgunet.load(model, device="cpu").translate(make_image(0, 30, 30))


@pytest.mark.parametrize(
    ("length", "tile", "stride"), [(64, 64, 32), (96, 64, 32), (1024, 256, 16), (640, 96, 32), (7, 3, 1)]
)
def test_tiles_cover_everything_and_overlap(length, tile, stride):
    begins = starts(length, tile, stride)
    assert begins[0] == 0
    assert begins[-1] + tile == length
    assert all(b % stride == 0 for b in begins)
    steps = np.diff(begins)
    assert (steps > 0).all()
    assert (tile - steps >= max(stride, 0.25 * tile - stride / 2)).all()
    assert ramp(tile, False, False).std() == 0


def test_blending_changes_nothing_where_tiles_agree():
    image = np.random.default_rng(0).random((160, 224, 2)).astype(np.float32)

    def run(left, top, width, height, number):
        return image[top : top + height, left : left + width]

    assert np.concatenate(list(blend((224, 160), 64, 16, 1, 2, run))) == pytest.approx(image, abs=1e-6)


@pytest.mark.parametrize("name", TRAINABLE)
def test_tiles_have_no_seams(trained_runs, name):
    """Tile borders have no larger steps than other places, and the output is close to that of a single pass."""
    model = msgunet.load(trained_runs / name / "generator.safetensors", device="cpu")
    source = make_image(3, 1024, 768)
    whole, tiled = (np.asarray(model.translate(source, tile=tile), float) for tile in (None, 256))
    for axis, length in ((1, 1024), (0, 768)):
        begins = starts(length, 256, model._grid)
        borders = sorted({*begins[1:], *(b + 256 for b in begins[:-1])})
        # The image itself has steps: compare with the same places of a single pass.
        steps = [np.abs(np.diff(image, axis=axis)).mean((1 - axis, 2)) for image in (tiled, whole)]
        more = steps[0] - steps[1]
        at = np.zeros(length - 1, bool)
        at[[border - 1 for border in borders]] = True
        # The mean of a few borders varies by two standard errors.
        noise = 2 * more[~at].std() / np.sqrt(at.sum())
        assert more[at].mean() <= np.abs(more[~at]).mean() + noise
        assert more[at].max() <= more[~at].max() + 0.01
    error = np.sqrt(np.mean((tiled - whole) ** 2))
    assert error < 0.35 * whole.std()


def test_a_large_image_stays_within_the_memory_limit(tmp_path):
    """8192x4096 within 2 GB for the whole process."""
    model = untrained(tmp_path, options={"width": 0.03125})
    make_image(0, 8192, 4096).save(tmp_path / "large.png", compress_level=1)
    code = (
        "import sys; from msgunet.cli.main import main; from msgunet.device.measuring import memory_mib; "
        "assert main(sys.argv[1:]) == 0; print(memory_mib('VmHWM'))"
    )
    command = ["translate", str(model), str(tmp_path / "large.png"), "--out", str(tmp_path / "out"), "--memory", "2"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True, timeout=280
    )
    assert float(done.stdout.split()[-1]) * 2**20 < 2e9
    with Image.open(tmp_path / "out" / "large.png") as image:
        assert image.size == (8192, 4096)


def test_too_little_memory_is_reported(tmp_path):
    model = msgunet.load(untrained(tmp_path), device="cpu", memory=1e12)
    model.memory._limit = 2**20 * memory_mib("VmRSS") + 50e6
    with pytest.raises(OutOfMemory, match=r"tile of 256x256 of this image needs .* MiB, but only \d+ MiB are"):
        model.translate(make_image(0, 300, 300))


def test_a_limit_below_the_process_itself_names_both_and_the_least(tmp_path, capsys):
    model, image = untrained(tmp_path), tmp_path / "a.png"
    make_image(0, 300, 300).save(image)
    command = ["translate", str(model), str(image), "--out", str(tmp_path / "out"), "--device", "cpu", "--memory"]
    assert main([*command, "0.01"]) == 2
    message = capsys.readouterr().err
    found = re.fullmatch(
        r"error: the memory limit of 10\.0 MB \(--memory\) is below what this process takes by itself, "
        r"(.*); allow at least (.*) GB, and more for large images\n",
        message,
    )
    assert found is not None, message
    amount, least = found.groups()
    used = float(amount.split()[0].replace(",", "")) * {"GB": 1e9, "MB": 1e6}[amount.split()[1]]
    assert used == pytest.approx(2**20 * memory_mib("VmRSS"), abs=0.2e9)
    assert main([*command, least]) == 0, "the least that is named is enough"


@pytest.mark.parametrize("name", [name for name in METHOD_OF if name != "mean"])
def test_every_method_translates(tmp_path, name):
    model = msgunet.load(untrained(tmp_path, name), device="cpu")
    assert model.translate(make_image(0, 101, 67), tile=64).size == (101, 67)
