"""What runs, data sets, images and this machine need to know: frozen models, parsed once."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from msgunet.core.files import canonical_json, short_hash

ARCHIVES = Path("data/archives")
WEIGHTS = Path("data/weights")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")]
Size = tuple[Annotated[int, Field(ge=8, le=16384)], Annotated[int, Field(ge=8, le=16384)]]
Pairs = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class Strict(BaseModel):
    """Frozen; unknown keys and values that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _own(description: str) -> Any:
    """A field about a user's own method; left out of files where there is none, which stay as they were without it."""
    return Field(None, exclude_if=lambda value: value is None, description=description)


_FILE, _CODE = "a user's own file, which registers the method", "hash of that file's code"


def _identity(settings: BaseModel) -> str:
    return short_hash(canonical_json(settings.model_dump(mode="json")))


class TrainingSettings(Strict):
    """What decides the result of a training, beside the method itself."""

    epochs: int = Field(100, ge=0, description="epochs at the constant learning rate")
    decay_epochs: int = Field(100, ge=0, description="epochs in which the learning rate falls linearly to zero")
    minutes: float | None = Field(
        None,
        gt=0,
        exclude_if=lambda value: value is None,
        description="instead: train for so long, however many epochs that is; epochs and decay_epochs then say in what "
        "proportion the time is divided",
    )
    decay_from: Literal["first", "second"] = Field(
        "second",
        description="of these, the one that is the first below the full rate: Pix2Pix first, Pix2Pix-HD second",
    )
    batch_size: int = Field(1, ge=1, description="pairs per step")
    accumulate: int = Field(
        1, ge=1, description="parts that a batch is worked on in, to need less memory; batch norm sees one part"
    )
    learning_rate: float = Field(2e-4, gt=0, description="of Adam, for the generator and the discriminators")
    beta1: float = Field(0.5, ge=0, lt=1, description="of Adam")
    beta2: float = Field(0.999, ge=0, lt=1, description="of Adam")
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32",
        description="of convolutions; tf32: for GPUs; bf16: for GPUs, and CPUs with instructions for it",
    )
    flip: bool = Field(False, description="mirror half of the pairs, left to right")
    jitter: int = Field(0, ge=0, description="enlarge by this many pixels and crop at random (Pix2Pix: 30 at 256)")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of an average of the generator's weights; 0: no average")


class ImageFormat(Strict):
    """Channels and values of images; the paper's, and most people's, are 8-bit RGB."""

    channels: int = Field(3, ge=1, le=16, description="1: grey, 3: colours")
    range: tuple[Annotated[int, Field(ge=0, le=65535)], Annotated[int, Field(ge=0, le=65535)]] = Field(
        (0, 255), description="the values that are black and white; above 255 images have 16 bits"
    )

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.range[0] >= self.range[1]:
            raise ValueError(f"the range {list(self.range)} does not rise")
        return self

    @property
    def bits(self) -> int:
        """Of each value in a file."""
        return 8 if self.range[1] <= 255 else 16

    @property
    def dtype(self) -> str:
        """Of each value, as numpy calls it."""
        return f"uint{self.bits}"

    @property
    def suffix(self) -> str:
        """Of files: one or three channels are PNG, others TIFF."""
        return ".png" if self.channels in (1, 3) else ".tif"

    def __str__(self) -> str:
        """As conditions name it: `8-bit RGB`, `16-bit grey, 0 to 4095`, `16-bit, 6 channels`."""
        name = {1: " grey", 3: " RGB"}.get(self.channels, f", {self.channels} channels")
        whole = self.range == (0, 2**self.bits - 1)
        return f"{self.bits}-bit{name}" + ("" if whole else f", {self.range[0]} to {self.range[1]}")

    @property
    def rgb(self) -> list[int]:
        """The channels that are shown as red, green and blue, and that VGG-19 sees as these."""
        return [min(i, self.channels - 1) for i in range(3)]


RGB = ImageFormat()


def batch_problem(batch: int, parts: int, processes: int) -> str | None:
    """Why a batch does not come out even, if it does not."""
    if batch % (parts * processes) == 0:
        return None
    return (
        f"a batch of {batch} pairs (training.batch_size) cannot be shared by {processes} processes (compute.processes) "
        f"in {parts} parts (training.accumulate); a multiple of {parts * processes} can"
    )


class PerceptualSettings(Strict):
    """The VGG-19 behind the perceptual losses."""

    weights: Literal["imagenet", "untrained"] = Field("imagenet", description="untrained: random, seeded weights")
    width: float = Field(1.0, gt=0, le=1, description="factor on VGG-19's channels; 1 for ImageNet weights")

    @model_validator(mode="after")
    def _published_width(self) -> Self:
        if self.weights == "imagenet" and self.width != 1:
            raise ValueError("ImageNet weights need width 1")
        return self


class EvaluationSettings(Strict):
    """How test images are measured."""

    metrics: tuple[Literal["psnr", "ssim", "vif"], ...] = Field(
        ("psnr", "ssim", "vif"), min_length=1, description="of every test image"
    )
    protocols: tuple[Literal["native", "full"], ...] = Field(
        ("native", "full"),
        min_length=1,
        description="native: against the target at the network's size; full: outputs brought to the data set's size",
    )


class CostSettings(Strict):
    """How networks are counted and timed."""

    repeats: int = Field(20, ge=1, description="timed forward passes per network and size")
    warmup: int = Field(3, ge=0, description="forward passes before the clock starts")


class Network(Strict):
    """One network at one size, for the cost table."""

    entry: Name
    part: Literal["generator", "discriminator", "perceptual"]
    method: Name | None = None
    version: int = 0
    file: str | None = _own(_FILE)
    code: str | None = _own(_CODE)
    size: Size
    options: dict[str, Any]
    channels: tuple[int, int] = Field((3, 3), description="of source and target")
    used: bool = Field(description="whether the suite trains it at this size")

    @property
    def identity(self) -> str:
        """A short hash: what is counted carries it, so that it is not taken for another network's."""
        return _identity(self)


class NetworkList(CostSettings):
    """All networks of a suite: written as canonical JSON, and the input of the cost table."""

    networks: tuple[Network, ...]


class ComputeSettings(Strict):
    """How the work is done on this machine; part of no result's identity, but recorded with each."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a CUDA GPU where there is one")
    gpu_required: bool = Field(False, description="refuse to start without a CUDA GPU")
    threads: int = Field(1, ge=1, description="CPU threads per training; other counts give other last bits")
    processes: int = Field(
        1, ge=1, description="processes that train one run together, with a GPU each where there are GPUs"
    )
    activation_checkpointing: bool = Field(
        False, description="train in less memory and more time: compute activations again instead of keeping them"
    )
    compile: bool = Field(False, description="train through torch.compile, which needs a C++ compiler on a CPU")
    workers: int = Field(0, ge=0, description="processes that decode images beside each training")
    job_hours: float = Field(
        24.0,
        gt=0,
        description="that a job asks a cluster for at most; a training then goes on in another",
    )
    checkpoint_minutes: float = Field(10.0, gt=0, description="work that a killed training loses at most")
    sample_epochs: int = Field(10, ge=1, description="epochs between two sample grids")
    log_steps: int = Field(50, ge=1, description="steps between two rows of the history")
    disk_gb: float = Field(0.0, ge=0, description="free disk that the suite needs")

    @model_validator(mode="after")
    def _torch_can_do_both(self) -> Self:
        if self.compile and self.activation_checkpointing:
            raise ValueError("compile and activation_checkpointing do not go together: choose one")
        return self


class DataSetSettings(Strict):
    """A prepared data set: written as canonical JSON, and the input of its preparation."""

    format: Literal[1] = 1
    kind: Name
    version: int = Field(description="of the data set; goes up when the prepared images would change")
    size: Size
    pairs: Pairs | None = Field(
        None, exclude_if=lambda value: value is None, description="of each split, where not all"
    )
    options: dict[str, Any]
    listing: str = Field("", description="hash of the names and sizes of a user's own images")


class DataSettings(Strict):
    """Where the published files of the data sets come from."""

    mirror: str | dict[Name, str] | None = Field(
        None,
        description="folder that holds the published files, for all data sets or by kind; where none is named they are "
        "downloaded into data/archives",
    )
    urls: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="by a file's name: more addresses of it, which are tried first"
    )
    vgg19: str = Field(str(WEIGHTS / "vgg19-dcbb9e9d.pth"), description="torchvision's ImageNet weights of VGG-19")

    def archives(self, kind: str) -> tuple[Path, bool]:
        """The folder with a data set's published files, and whether what is missing there is downloaded."""
        given = self.mirror.get(kind) if isinstance(self.mirror, dict) else self.mirror
        return (ARCHIVES, True) if given is None else (Path(given).expanduser(), False)


class MachineSettings(ComputeSettings, DataSettings):
    """Everything about this machine in one file, `compute.json`; no result depends on it."""


class RunSettings(Strict):
    """All that decides one run: written as canonical JSON, and the input of its training."""

    format: Literal[1] = 1
    suite: str
    dataset: Name
    data: str = Field(description="folder of the prepared data set")
    source_kind: Literal["photo", "labels"]
    target_kind: Literal["photo", "labels"]
    source_format: ImageFormat = RGB
    target_format: ImageFormat = RGB
    entry: Name = Field(description="the suite's name of the row")
    method: Name
    version: int = Field(description="of the method; goes up when its results would change")
    file: str | None = _own(_FILE)
    code: str | None = _own(_CODE)
    size: Size
    seed: int
    options: dict[str, Any]
    training: TrainingSettings
    perceptual: PerceptualSettings | None = None
    gradient_records: int = Field(0, description="how often gradients are recorded over the training; 0: never")

    @property
    def identity(self) -> str:
        """A short hash: results of a run carry it, so that none is taken for one of other settings."""
        return _identity(self)

    @property
    def channels(self) -> tuple[int, int]:
        """Of source and target."""
        return self.source_format.channels, self.target_format.channels

    @property
    def formats(self) -> tuple[ImageFormat, ImageFormat]:
        """Of source and target."""
        return self.source_format, self.target_format

    @property
    def kinds(self) -> tuple[Literal["photo", "labels"], Literal["photo", "labels"]]:
        """Of source and target."""
        return self.source_kind, self.target_kind
