"""Small data and settings that many tests share."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from msgunet.core.files import sha256_file
from msgunet.core.settings import ComputeSettings, DataSetSettings, RunSettings, TrainingSettings
from msgunet.data.manifest import Pair, write_manifest
from msgunet.methods.method import Method, Phase
from msgunet.methods.registry import build_method, custom_methods, get_method, methods
from msgunet.methods.vgg19 import load_perceptual
from msgunet.suite.file import load_suite
from msgunet.training import loop, memory
from msgunet.training.state import TrainingState

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _counted_once():
    """What a step needs is counted once for the same settings, not at the start of each training."""
    real, known = memory.step_needs, {}

    def step_needs(method, settings, phase, compute):
        key = settings.model_dump_json(exclude={"data", "seed"}), phase, compute.model_dump_json()
        if key not in known:
            known[key] = real(method, settings, phase, compute)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "step_needs", step_needs)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with samples of the public data sets, where there is one."""
    if not (SHARED / "mirror").is_dir():
        pytest.skip("no ../shared beside the project: the data sets' samples are not here")
    return SHARED


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write the golden curves of the methods again")


def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that is one for all of pytest's processes."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills in the first of pytest's processes that needs it; others wait, and change nothing."""
    folder = common_folder(tmp_path_factory) / name
    with FileLock(f"{folder}.lock"):
        done = Path(f"{folder}.done")
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def make_image(seed: int, width: int, height: int) -> Image.Image:
    """A smooth random image."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def make_data(
    folder: Path,
    width: int = 64,
    height: int = 64,
    train: int = 6,
    test: int = 3,
    name: Callable[[int], str] = "p{:02d}".format,
) -> Path:
    """A prepared data set whose target is the negative of the source."""
    pairs = []
    for i in range(train + test):
        split = "train" if i < train else "test"
        source = make_image(i, width, height)
        target = Image.eval(source, lambda v: 255 - v)
        paths, hashes = [], []
        for role, image in (("source", source), ("target", target)):
            path = folder / split / f"{name(i)}.{role}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
            paths.append(str(path.relative_to(folder)))
            hashes.append(hashlib.sha256(image.tobytes()).hexdigest())
        pairs.append(Pair(name(i), split, *paths, width, height, width, height, *hashes))
    write_manifest(folder / "manifest.csv", pairs)
    return folder


def dataset_settings(kind: str, size: tuple[int, int], **options) -> DataSetSettings:
    """The settings of a prepared data set, as a plan writes them."""
    return DataSetSettings(kind=kind, version=1, size=size, options=options)


NARROW = {
    "msgunet": {"width": 0.0625, "discriminator_width": 0.0625, "scales": 2},
    # Deep enough to have dropout.
    "pix2pix": {"width": 0.0625, "discriminator_width": 0.0625, "downsamplings": 6},
    # A margin that the distance stays below, so that the discriminator's term acts.
    "pan": {"width": 0.0625, "discriminator_width": 0.0625, "downsamplings": 4, "margin": 50},
    "pix2pixhd": {"width": 0.0625, "discriminator_width": 0.0625, "downsamplings": 2, "blocks": 1},
}
NARROW["pix2pixhd_local"] = NARROW["pix2pixhd"] | {"generator": "local", "coarse_epochs": 1, "freeze_epochs": 1}

NARROW["spade"] = {"width": 0.0625, "discriminator_width": 0.0625}

# A method by its name, and the other networks that a method has.
METHOD_OF = {name: name for name in methods()} | {"pix2pixhd_local": "pix2pixhd", "spade": "spade"}
# Those in files outside the package.
FILES = {"spade": str(ROOT / "examples" / "spade.py")}
# A user's own, with the options of a suite (docs/own-method.md).
if "MSGUNET_SUITE" in os.environ:
    entries = load_suite(Path(os.environ["MSGUNET_SUITE"])).methods
    for entry_name, entry in entries.items():
        if entry.file is not None:
            METHOD_OF[entry_name], NARROW[entry_name] = entry.method or entry_name, entry.options
            FILES[entry_name] = str(Path(entry.file).resolve())


def method_class(name: str) -> type[Method]:
    """The method behind a name in `METHOD_OF`."""
    return get_method(METHOD_OF[name], FILES.get(name))


TRAINABLE = [name for name in METHOD_OF if method_class(name).trainable]


def make_settings(data: Path, method: str = "msgunet", size: tuple[int, int] = (64, 64), **changes) -> RunSettings:
    """The settings of a narrow run, of a name in `METHOD_OF`, on a prepared folder."""
    cls, file = method_class(method), FILES.get(method)
    options = cls.Options.model_validate(NARROW.get(method, {}) | changes.pop("options", {}))
    values = {
        "suite": "test",
        "dataset": "negatives",
        "data": str(data),
        "source_kind": "photo",
        "target_kind": "photo",
        "entry": method,
        "method": METHOD_OF[method],
        "version": cls.version,
        "file": file,
        "code": file and custom_methods(file).code,
        "size": size,
        "seed": 0,
        "options": options.model_dump(mode="json"),
        "training": TrainingSettings(epochs=1, decay_epochs=1, batch_size=2),
        "perceptual": {"weights": "untrained", "width": 0.0625} if cls.uses_perceptual(options) else None,
    }
    return RunSettings.model_validate({**values, **changes})


def through_phases(method: Method, state: TrainingState, training: TrainingSettings, count: int) -> Iterator[Phase]:
    """The phase of each of `count` steps, evenly shared out; each begins before its first."""
    phases, now = method.phases(training), None
    for step in range(count):
        phase = phases[step * len(phases) // count]
        if phase is not now:
            state.begin_phase(method, phase, resumed=False)
        now = phase
        yield phase


def write_run(folder: Path, settings: RunSettings) -> Path:
    """A run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    path.write_text(json.dumps(settings.model_dump(mode="json")))
    return path


def train(folder: Path, settings, compute) -> str:
    """Train in this process; the hash of the published generator."""
    loop.train(write_run(folder, settings), folder, compute, Path("unused"))
    return sha256_file(folder / "generator.safetensors")


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all methods, by name, that have learnt a little of turning an image negative; their data in `data`."""

    def make(folder: Path) -> None:
        torch.set_num_threads(1)
        data = make_data(folder / "data", train=8)
        training = TrainingSettings(epochs=15, decay_epochs=0, batch_size=2, learning_rate=1e-3)
        for name in TRAINABLE:
            train(folder / name, make_settings(data, name, training=training), ComputeSettings(device="cpu"))

    return made_once(tmp_path_factory, "learnt", make)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


@pytest.fixture
def compute() -> ComputeSettings:
    return ComputeSettings(device="cpu", sample_epochs=1, log_steps=1)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def step_losses(name, seed=0):
    """Losses of a narrow method on random images, with its networks."""
    torch.manual_seed(seed)
    method = build_method(make_settings("unused", name))
    generator, discriminator = method.build_generator(), method.build_discriminator()
    scales = method.scales(method.options, method.size)
    sources, targets = ([torch.rand(2, 3, 64 >> k, 64 >> k) * 2 - 1 for k in range(scales)] for _ in "st")
    settings = make_settings("unused", name).perceptual
    perceptual = load_perceptual(settings, None) if settings else None
    return method, generator, discriminator, sources, targets, perceptual
