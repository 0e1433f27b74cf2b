"""Small data sets, settings and fixtures that many tests share."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import mounted
from filelock import FileLock
from narrow import DESIGN, NARROW
from own_code import EXAMPLE, SMALL
from PIL import Image

from msgunet.core.files import sha256_file
from msgunet.core.settings import ComputeSettings, DataSetSettings, RunSettings, TrainingSettings
from msgunet.data.manifest import Pair, write_manifest
from msgunet.methods import method_file
from msgunet.methods.method import Method, Phase
from msgunet.methods.method_file import trust
from msgunet.methods.registry import custom_methods, get_method, methods
from msgunet.suite.file import load_suite
from msgunet.suite.plan import load_plan
from msgunet.training import loop, memory
from msgunet.training.state import TrainingState

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _counted_once():
    """Count the memory and compute of a step only once per settings, not at the start of each training."""
    real, cache = memory.step_needs, {}
    # What changes no step.
    where = dict.fromkeys(("suite", "dataset", "data", "entry", "seed"), True)
    where |= {"training": {"epochs", "decay_epochs", "learning_rate"}}
    when = {"checkpoint_minutes", "sample_epochs", "log_steps", "workers"}

    def step_needs(method, settings, phase, compute):
        key = settings.model_dump_json(exclude=where), phase.name, phase.fresh, compute.model_dump_json(exclude=when)
        if key not in cache:
            cache[key] = real(method, settings, phase, compute)
        return cache[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "step_needs", step_needs)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with samples of the public data sets; skips the test if it is missing."""
    if not (SHARED / "mirror").is_dir():
        pytest.skip("the samples of the data sets are missing: no ../shared next to the project")
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest first, so that no process waits for another one at the end.
    items.sort(key=lambda item: "workflow" not in item.path.parts)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="regenerate the golden curves of the methods")


def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a temporary folder that all of pytest's processes share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that `make` fills once, in the first of pytest's processes that needs it.

    The other processes wait for it. No test may change the folder.
    """
    folder = common_folder(tmp_path_factory) / name
    with FileLock(f"{folder}.lock"):
        done = Path(f"{folder}.done")
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def make_image(seed: int, width: int, height: int) -> Image.Image:
    """Return a smooth random image."""
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
    """Write a prepared data set in which the target is the negative of the source; return its folder."""
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
    """Return the settings of a prepared data set, as a plan writes them."""
    return DataSetSettings(kind=kind, version=1, size=size, options=options)


# The method behind each name that tests use: a method's own name, or a variant with other networks.
METHOD_OF = {name: name for name in methods()} | {"pix2pixhd_local": "pix2pixhd", "spade": "spade"}
METHOD_OF |= {"unet_l1_msgunet": "unet_l1"} | dict.fromkeys(DESIGN, "msgunet")
# Python files of the methods outside the package.
FILES = {"spade": str(ROOT / "examples" / "spade.py")}
trust(FILES["spade"])
# Custom methods of the suite in MSGUNET_SUITE, with its options (docs/own-method.md).
if "MSGUNET_SUITE" in os.environ:
    entries = load_suite(Path(os.environ["MSGUNET_SUITE"])).methods
    for entry_name, entry in entries.items():
        if entry.file is not None:
            METHOD_OF[entry_name], NARROW[entry_name] = entry.method or entry_name, entry.options
            FILES[entry_name] = str(Path(entry.file).resolve())


def method_class(name: str) -> type[Method]:
    """Return the method behind a name in `METHOD_OF`."""
    return get_method(METHOD_OF[name], FILES.get(name))


TRAINABLE = [name for name in METHOD_OF if method_class(name).trainable and name not in {*DESIGN, "unet_l1_msgunet"}]
ADVERSARIAL = [name for name in TRAINABLE if method_class(name).has_discriminator(None)]


def make_settings(data: Path, method: str = "msgunet", size: tuple[int, int] = (64, 64), **changes) -> RunSettings:
    """Return the settings of a run with narrow networks, for a name in `METHOD_OF` and a prepared data set."""
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
    """Yield the phase of each of `count` steps, split evenly; begin each phase before its first step."""
    phases, current = method.phases(training), None
    for step in range(count):
        phase = phases[step * len(phases) // count]
        if phase is not current:
            state.begin_phase(method, phase, resumed=False)
        current = phase
        yield phase


def write_run(folder: Path, settings: RunSettings) -> Path:
    """Write the settings to run.json and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    path.write_text(json.dumps(settings.model_dump(mode="json")))
    return path


def train(folder: Path, settings, compute) -> str:
    """Train in this process; return the hash of the published generator."""
    loop.train(write_run(folder, settings), folder, compute, Path("unused"))
    return sha256_file(folder / "generator.safetensors")


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short training of every method, by name, on negatives of images; the data set is in `data`."""

    def make(folder: Path) -> None:
        torch.set_num_threads(1)
        data = make_data(folder / "data", train=8)
        training = TrainingSettings(epochs=15, decay_epochs=0, batch_size=2, learning_rate=1e-3)
        for name in TRAINABLE:
            train(folder / name, make_settings(data, name, training=training), ComputeSettings(device="cpu"))

    return made_once(tmp_path_factory, "trained_runs", make)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


@pytest.fixture
def compute() -> ComputeSettings:
    return ComputeSettings(device="cpu", sample_epochs=1, log_steps=1)


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, set as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


@pytest.fixture
def method_folder(working_folder, monkeypatch):
    """A working folder that contains only `my_method.py`, as in a process that has not loaded any method file."""
    monkeypatch.setattr(method_file, "_loaded", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(method_file._TRUSTED, "[]")
    (working_folder / "my_method.py").write_text(SMALL)
    method_file.trust("my_method.py")
    yield working_folder
    load_plan.cache_clear()


@pytest.fixture
def trained_method(method_folder, compute):
    """A working folder with a trained run of the documented example."""
    (method_folder / "my_method.py").write_text(EXAMPLE)
    loaded = custom_methods("my_method.py")
    changes = {"entry": "mine", "method": "mine", "version": 1, "file": "my_method.py", "code": loaded.code}
    changes["training"] = TrainingSettings(epochs=1, decay_epochs=0, batch_size=2)
    settings = make_settings(make_data(method_folder / "data"), "mean").model_dump() | changes
    settings["options"] = {"filters": 4, "blocks": 1}
    train(method_folder / "run", RunSettings.model_validate(settings), compute)
    return method_folder


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 2 MB."""
    with mounted(tmp_path / "small", 2) as disk:
        yield disk.folder


@pytest.fixture
def disk(tmp_path):
    """A real file system of 20 MB that can be filled."""
    with mounted(tmp_path / "disk", 20) as disk:
        yield disk
