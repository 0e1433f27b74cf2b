"""Settings of runs, data sets, images and this machine: frozen models, parsed once."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from msgunet.core.files import canonical_json, short_hash
from msgunet.core.lists import DISTINCT
from msgunet.core.metrics import METRICS, PAPERS
from msgunet.core.paths import ARCHIVES, WEIGHTS

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")]
Size = tuple[Annotated[int, Field(ge=8, le=16384)], Annotated[int, Field(ge=8, le=16384)]]
Pairs = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
Resampling = Literal["lanczos", "bicubic"]


class Strict(BaseModel):
    """Base class of all settings: frozen; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def later(default: Any, description: str, **limits: Any) -> Any:
    """Return a field that the JSON leaves out at its default, so that hashes from before the field stay the same."""
    return Field(default, exclude_if=lambda value: value == default, description=description, **limits)


_FILE, _CODE = "Python file that registers the custom method", "hash of that file's code"
_FILTER = "filter that resizes photographs; bicubic as in the published code of Pix2Pix"


def _identity(settings: BaseModel) -> str:
    return short_hash(canonical_json(settings.model_dump(mode="json")))


class TrainingSettings(Strict):
    """Everything that determines the result of a training, apart from the method itself."""

    epochs: int = Field(100, ge=0, description="epochs at the constant learning rate")
    decay_epochs: int = Field(100, ge=0, description="epochs in which the learning rate falls linearly to zero")
    minutes: float | None = later(
        None, "train for this many minutes; epochs and decay_epochs then set only how the time is divided", gt=0
    )
    decay_from: Literal["first", "second"] = Field(
        "second",
        description="first decay epoch below the full learning rate: first as in Pix2Pix, second as in Pix2Pix-HD",
    )
    batch_size: int = Field(1, ge=1, description="pairs per step")
    accumulate: int = Field(
        1, ge=1, description="micro-batches that a batch is split into, to save memory; batch norm sees one micro-batch"
    )
    learning_rate: float = Field(2e-4, gt=0, description="of Adam, for the generator and the discriminators")
    beta1: float = Field(0.5, ge=0, lt=1, description="beta1 of Adam")
    beta2: float = Field(0.999, ge=0, lt=1, description="beta2 of Adam")
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32",
        description="precision of convolutions; tf32 is for GPUs, bf16 for GPUs and for CPUs with bf16 instructions",
    )
    flip: bool = Field(False, description="flip each pair horizontally with probability 0.5")
    jitter: int = Field(0, ge=0, description="resize to so many pixels more, then crop at random (Pix2Pix: 30 at 256)")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the moving average of the generator's weights; 0: no average"
    )


class ImageFormat(Strict):
    """Channels and value range of images; most images, the paper's too, are 8-bit RGB."""

    channels: int = Field(3, ge=1, le=16, description="1: grey, 3: RGB")
    range: tuple[Annotated[int, Field(ge=0, le=65535)], Annotated[int, Field(ge=0, le=65535)]] = Field(
        (0, 255), description="the values of black and white; images with values above 255 are 16-bit"
    )

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        if self.range[0] >= self.range[1]:
            raise ValueError(f"range {list(self.range)}: the first value must be below the second")
        return self

    @property
    def bits(self) -> int:
        """The number of bits of each value in a file."""
        return 8 if self.range[1] <= 255 else 16

    @property
    def dtype(self) -> str:
        """NumPy's name for the type of each value."""
        return f"uint{self.bits}"

    @property
    def suffix(self) -> str:
        """The suffix of files: PNG for one or three channels, TIFF for others."""
        return ".png" if self.channels in (1, 3) else ".tif"

    def __str__(self) -> str:
        """Return the format as it is printed: `8-bit RGB`, `16-bit grey, 0 to 4095`, `16-bit, 6 channels`."""
        name = {1: " grey", 3: " RGB"}.get(self.channels, f", {self.channels} channels")
        whole = self.range == (0, 2**self.bits - 1)
        return f"{self.bits}-bit{name}" + ("" if whole else f", {self.range[0]} to {self.range[1]}")

    @property
    def rgb(self) -> list[int]:
        """The channels that are displayed, and passed to VGG-19, as red, green and blue."""
        return [min(i, self.channels - 1) for i in range(3)]


RGB = ImageFormat()


def batch_problem(batch: int, parts: int, processes: int) -> str | None:
    """Return why a batch cannot be split evenly, or None if it can."""
    if batch % (parts * processes) == 0:
        return None
    return (
        f"a batch of {batch} pairs (training.batch_size) cannot be split over {processes} processes "
        f"(compute.processes) with {parts} micro-batches each (training.accumulate); "
        f"use a multiple of {parts * processes}"
    )


class PerceptualSettings(Strict):
    """The VGG-19 of the perceptual losses."""

    weights: Literal["imagenet", "untrained"] = Field("imagenet", description="untrained: random, seeded weights")
    width: float = Field(1.0, gt=0, le=1, description="factor on VGG-19's channels; must be 1 for ImageNet weights")

    @model_validator(mode="after")
    def _published_width(self) -> Self:
        if self.weights == "imagenet" and self.width != 1:
            raise ValueError("ImageNet weights need width 1")
        return self


class EvaluationSettings(Strict):
    """How test images are evaluated."""

    metrics: Annotated[tuple[Literal[*METRICS], ...], DISTINCT] = Field(
        PAPERS, min_length=1, description="metrics computed for every test image"
    )
    protocols: Annotated[tuple[Literal["native", "full"], ...], DISTINCT] = Field(
        ("native", "full"), min_length=1, description="native: at the network's size; full: resized to the data set's"
    )
    precision: Literal["fp32", "tf32", "bf16", "training"] = later(
        "fp32", "precision of trained networks, not of the metrics; training: as each run was trained"
    )


class CostSettings(Strict):
    """How the cost of networks is counted and timed."""

    repeats: int = Field(20, ge=1, description="timed forward passes per network and size")
    warmup: int = Field(3, ge=0, description="untimed forward passes before the timed ones")


class Network(Strict):
    """One network at one size, for the cost table."""

    entry: Name
    part: Literal["generator", "discriminator", "perceptual"]
    method: Name | None = None
    version: int = 0
    file: str | None = later(None, _FILE)
    code: str | None = later(None, _CODE)
    size: Size
    options: dict[str, Any]
    channels: tuple[int, int] = Field((3, 3), description="channels of source and target")
    used: bool = Field(description="whether the suite trains this network at this size")

    @property
    def identity(self) -> str:
        """A short hash, stored with the network's cost so that it is never used for another network."""
        return _identity(self)


class NetworkList(CostSettings):
    """All networks of a suite, written as canonical JSON: the input of the cost table."""

    networks: tuple[Network, ...]


class ComputeSettings(Strict):
    """How the work is done on this machine; not part of a result's identity, but recorded with every result."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a CUDA GPU if there is one")
    gpu_required: bool = Field(False, description="refuse to start without a CUDA GPU")
    threads: int = Field(1, ge=1, description="CPU threads per training; their number affects the last bits of results")
    processes: int = Field(
        1, ge=1, description="processes that train one run together, each with its own GPU if there are GPUs"
    )
    activation_checkpointing: bool = Field(
        False, description="recompute activations in training instead of keeping them: less memory, more time"
    )
    compile: bool = Field(False, description="train with torch.compile; on a CPU this needs a C++ compiler")
    cuda_graphs: Literal["auto", "off"] = Field(
        "auto", description="auto: launch a training step or a translation at once, as a CUDA graph, where possible"
    )
    workers: int = Field(0, ge=0, description="processes that decode for a training; more threads for an evaluation")
    job_hours: float = Field(
        24.0, gt=0, description="the longest time that a job of a cluster requests; a longer training needs several"
    )
    checkpoint_minutes: float = Field(10.0, gt=0, description="the most work, in minutes, that a killed training loses")
    sample_epochs: int = Field(10, ge=1, description="epochs between two sample grids")
    log_steps: int = Field(50, ge=1, description="steps between two rows of the history")
    disk_gb: float = Field(0.0, ge=0, description="free disk space that the suite needs, in GB")

    @model_validator(mode="after")
    def _compile_without_checkpointing(self) -> Self:
        if self.compile and self.activation_checkpointing:
            raise ValueError("compile and activation_checkpointing cannot be combined: choose one")
        return self


class DataSetSettings(Strict):
    """A prepared data set, written as canonical JSON: the input of its preparation."""

    format: Literal[1] = 1
    kind: Name
    version: int = Field(description="version of the data set; increases whenever the prepared images would change")
    size: Size
    pairs: Pairs | None = later(None, "number of pairs in each split, if not all")
    resampling: Resampling = later("lanczos", _FILTER)
    train_size: tuple[int, int] | None = later(
        None, "prepare only the training images, at this size: training with jitter crops them"
    )
    options: dict[str, Any]
    listing: str = Field("", description="hash of the names and sizes of a user's own images")


class DataSettings(Strict):
    """Where the published files of data sets and networks are found."""

    mirror: str | dict[Name, str] | None = Field(
        None,
        description="folder that holds the published files, for all data sets or by kind; without one, they are "
        "downloaded into data/archives",
    )
    urls: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="additional URLs by file name, which are tried first"
    )
    vgg19: str = Field(str(WEIGHTS / "vgg19-dcbb9e9d.pth"), description="torchvision's ImageNet weights of VGG-19")
    vgg16: str = Field(str(WEIGHTS / "vgg16-397923af.pth"), description="those of VGG-16, for LPIPS and DISTS")
    lpips: str = Field(str(WEIGHTS / "lpips-vgg-a78928a0.pth"), description="the published weights of LPIPS")
    dists: str = Field(str(WEIGHTS / "dists-f5e65c96.pt"), description="the published weights of DISTS")

    def archives(self, kind: str) -> tuple[Path, bool]:
        """Return the folder with a data set's published files, and whether missing files are downloaded into it."""
        mirror = self.mirror.get(kind) if isinstance(self.mirror, dict) else self.mirror
        return (ARCHIVES, True) if mirror is None else (Path(mirror).expanduser(), False)


class MachineSettings(ComputeSettings, DataSettings):
    """All settings of this machine, in one file (`compute.json`); no result depends on them."""


class RunSettings(Strict):
    """Everything that determines one run, written as canonical JSON: the input of its training."""

    format: Literal[1] = 1
    suite: str
    dataset: Name
    data: str = Field(description="folder of the prepared data set")
    source_kind: Literal["photo", "labels"]
    target_kind: Literal["photo", "labels"]
    source_format: ImageFormat = RGB
    target_format: ImageFormat = RGB
    resampling: Resampling = later("lanczos", _FILTER)
    entry: Name = Field(description="name of the entry in the suite")
    method: Name
    version: int = Field(description="version of the method; increases whenever its results would change")
    file: str | None = later(None, _FILE)
    code: str | None = later(None, _CODE)
    size: Size
    seed: int
    options: dict[str, Any]
    training: TrainingSettings
    perceptual: PerceptualSettings | None = None
    gradient_records: int = Field(0, description="how often gradients are recorded in the training; 0: never")

    @property
    def identity(self) -> str:
        """A short hash, stored with the run's results so that they are never used for other settings."""
        return _identity(self)

    @property
    def channels(self) -> tuple[int, int]:
        """The channels of source and target."""
        return self.source_format.channels, self.target_format.channels

    @property
    def formats(self) -> tuple[ImageFormat, ImageFormat]:
        """The formats of source and target."""
        return self.source_format, self.target_format

    @property
    def kinds(self) -> tuple[Literal["photo", "labels"], Literal["photo", "labels"]]:
        """The kinds of source and target."""
        return self.source_kind, self.target_kind
