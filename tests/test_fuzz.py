"""Valid weights and images, changed at random: each gives a result or one error, never a traceback, in little memory.

Each test runs in a process of its own, whose peak memory is measured.
"""

import io
import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, make_image
from PIL import Image

GENERATOR = ROOT / "tests" / "fixtures" / "25f1304" / "generator.safetensors"
FORMATS = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "bmp": "BMP", "webp": "WEBP", "gif": "GIF", "ppm": "PPM"}
_GIB = 2**30

# Reads files by a function, and counts results and errors; anything but a UserError ends it.
_READ = """
import sys
from pathlib import Path
from msgunet.core.errors import UserError
from msgunet.device.measuring import memory_mib
{setup}
counts = [0, 0]
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        {call}
        counts[0] += 1
    except UserError as error:
        assert str(path) in str(error), error
        counts[1] += 1
print(*counts, memory_mib("VmHWM"))
"""
_WEIGHTS = ("from msgunet.methods.generator import load_generator", "load_generator(path, 'cpu')")
_IMAGES = (
    "from msgunet.data.decode import decode, decode_ids\n"
    "from msgunet.data.images import header_if_8_bit, read, read_raw\n"
    "def attempt(function, path):\n"
    "    try:\n"
    "        function(path, str(path))\n"
    "    except UserError as error:\n"
    "        assert str(path) in str(error), error",
    "[attempt(function, path) for function in (decode_ids, header_if_8_bit, read_raw, read)]; decode(path, str(path))",
)


def run(folder: Path, setup: str, call: str) -> tuple[int, int, float]:
    """Results, errors, and the peak of the process in MiB."""
    command = [sys.executable, "-c", _READ.format(setup=setup, call=call), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    results, errors, peak = done.stdout.split()
    return int(results), int(errors), float(peak)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut, repeated, zeroed or replaced, mostly near the beginning, where headers are."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        at = min(int(draw.expovariate(8 / len(out))), len(out) - 1) if draw.random() < 0.7 else draw.randrange(len(out))
        kind = draw.randrange(6)
        if kind == 0:
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            out[at] = draw.choice((0, 255, 127, 128))
        elif kind == 2:
            del out[at : at + draw.randrange(1, 40)]
        elif kind == 3:
            out[at:at] = out[at : at + draw.randrange(1, 40)]
        elif kind == 4:
            out[at : at + 4] = struct.pack(draw.choice("<>") + "I", draw.choice((0, 1, 2**31 - 1, 2**32 - 1, 65535)))
        else:
            del out[draw.randrange(len(out)) :]
        if not out:
            return b""
    return bytes(out)


def mutated_weights(draw: random.Random) -> bytes:
    """A generator's file with changed bytes, or with a changed header that is valid JSON."""
    data = GENERATOR.read_bytes()
    if draw.random() < 0.4:
        return mutated(data, draw)
    size = struct.unpack("<Q", data[:8])[0]
    header, tensors = json.loads(data[8 : 8 + size]), data[8 + size :]
    odd = (None, -1, 0, 2**40, 1e308, "x" * 300, "\0", "../x", [], {}, [2**40], True, "~/x.py", float("nan"))
    (key,) = header["__metadata__"]
    settings = json.loads(header["__metadata__"][key])
    what = draw.randrange(4)
    if what == 0:
        place = draw.choice([settings, settings["options"], settings["training"], settings["source_format"]])
        place[draw.choice([*place, "file", "code"])] = draw.choice(odd)
        header["__metadata__"][key] = json.dumps(settings)
    elif what == 1:
        name = draw.choice([name for name in header if name != "__metadata__"])
        header[name][draw.choice(("dtype", "shape", "data_offsets"))] = draw.choice((*odd, "F64", "BF16", [1], [0, 4]))
    elif what == 2:
        name = draw.choice([name for name in header if name != "__metadata__"])
        header[draw.choice((name + "x", "empty", ""))] = header.pop(name)
    else:
        values = np.frombuffer(tensors, np.float32).copy()
        values[draw.randrange(len(values))] = draw.choice((np.nan, np.inf, -np.inf, 1e38))
        tensors = values.tobytes() if len(tensors) % 4 == 0 else tensors
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_mutated_weights_are_loaded_or_refused(tmp_path, count):
    draw = random.Random(count)
    for number in range(count):
        (tmp_path / f"{number:04d}.safetensors").write_bytes(mutated_weights(draw))
    results, errors, peak = run(tmp_path, *_WEIGHTS)
    assert results + errors == count
    assert errors > count / 2
    assert peak * 2**20 < 2 * _GIB


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_mutated_images_are_read_or_refused(tmp_path, count):
    draw = random.Random(count)
    deep = np.random.default_rng(0).integers(0, 65536, (24, 24), np.uint16)
    for suffix, name in FORMATS.items():
        whole = io.BytesIO()
        make_image(1, 24, 24).save(whole, name)
        other = io.BytesIO()
        Image.fromarray(deep).save(other, name) if suffix in ("png", "tif") else make_image(2, 24, 24).save(other, name)
        for number in range(count):
            data = mutated((whole, other)[number % 2].getvalue(), draw)
            (tmp_path / f"{number:04d}.{suffix}").write_bytes(data)
    results, errors, peak = run(tmp_path, *_IMAGES)
    assert results + errors == count * len(FORMATS)
    assert min(results, errors) > count
    assert peak * 2**20 < 2 * _GIB
