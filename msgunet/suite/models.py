"""The keys of a suite file, as frozen models; their descriptions are the reference of all keys (docs/suites.md)."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from msgunet.core.lists import DISTINCT
from msgunet.core.settings import (
    ComputeSettings,
    CostSettings,
    DataSettings,
    EvaluationSettings,
    Name,
    Pairs,
    PerceptualSettings,
    Resampling,
    Size,
    Strict,
    TrainingSettings,
)

# That it holds no control characters is checked for all texts of a suite at once (`load_suite`).
Text = Annotated[str, StringConstraints(strip_whitespace=True)]


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str | None):
        raise ValueError("a value of a grid is a number, a text, true, false or null")
    return value


GridValue = Annotated[Any, AfterValidator(_scalar)]


class DataSetEntry(Strict):
    """One data set of a suite."""

    kind: Name | None = Field(None, description="registered data set; by default the name of the entry")
    size: Size = Field(description="width and height of the prepared images")
    pairs: Pairs | None = Field(
        None, description="use only this many training and test pairs, evenly spaced; by default all"
    )
    resampling: Resampling = Field(
        "lanczos", description="filter that resizes photographs; bicubic as in the published code of Pix2Pix"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="settings specific to the data set")


class MethodEntry(Strict):
    """One row of the tables: a method with its settings."""

    method: Name | None = Field(None, description="registered method; by default the name of the entry")
    file: str | None = Field(
        None,
        min_length=1,
        description="Python file that registers a custom method; by default a method of this project",
    )
    title: Text | None = Field(
        None, max_length=80, description="name in tables and figures; by default the method's title"
    )
    size: Size | None = Field(
        None, description="width and height of the network's images; by default those of the data set"
    )
    datasets: Annotated[tuple[Name, ...], DISTINCT] | None = Field(
        None, description="data sets to run it on; by default all"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="settings specific to the method")
    grid: dict[str, Annotated[tuple[GridValue, ...], Field(min_length=1), DISTINCT]] = Field(
        default_factory=dict,
        max_length=2,
        description="lists of values for one or two options, or settings such as training.epochs: the entry stands for "
        "one entry for each combination, and a table and a figure show the metrics over them",
    )
    training: TrainingSettings = Field(
        TrainingSettings(), description="overrides the training section of the suite, key by key"
    )


class AblationSettings(Strict):
    """Ablation of input versus output resolution (the paper's Tables 2 and 3)."""

    methods: Annotated[tuple[Name, ...], DISTINCT] = Field(
        (), description="entries to ablate; they need several scales"
    )


class GradientSettings(Strict):
    """Gradient distributions with and without intermediate outputs (the paper's Fig. 2)."""

    method: Name = Field("msgunet", description="entry to train with and without intermediate outputs")
    dataset: Name = Field(description="data set to train it on")
    epochs: int = Field(20, ge=1, description="epochs at the constant learning rate (20 in the paper)")
    minutes: float | None = Field(None, gt=0, description="train each variant for this many minutes instead")
    records: int = Field(20, ge=1, description="how many times the training records its gradients")


class ComparisonSettings(Strict):
    """A table and a figure of what each change brings: all trained entries against one of them; changes no result."""

    reference: Name = Field(
        description="trained entry that all others are compared with, such as the one that they are variants of"
    )


class ReportSettings(Strict):
    """How results are presented; never changes a result."""

    examples: int = Field(4, ge=1, le=32, description="test images in the figure of example images")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples for the 95 % intervals")
    protocol: Literal["auto", "native", "full"] = Field(
        "auto",
        description="protocol of the table that `msgunet show` prints and that comes first in the report; auto: full "
        "where trained methods have different sizes, else native",
    )


class Suite(Strict):
    """A suite file."""

    description: Text = Field("", description="one sentence for the page")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], DISTINCT] = Field(
        (0,),
        min_length=1,
        description="each entry is trained once per seed on every data set; a reference row has one run",
    )
    datasets: dict[Name, DataSetEntry] = Field(min_length=1)
    methods: dict[Name, MethodEntry] = Field(min_length=1)
    training: TrainingSettings = Field(
        TrainingSettings(), description="overrides the recipe of each method, key by key"
    )
    perceptual: PerceptualSettings = PerceptualSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    ablation: AblationSettings = AblationSettings()
    gradients: GradientSettings | None = None
    comparison: ComparisonSettings | None = None
    cost: CostSettings = CostSettings()
    report: ReportSettings = ReportSettings()
    compute: ComputeSettings = ComputeSettings()
    data: DataSettings = DataSettings()

    @model_validator(mode="after")
    def _reported_protocol_is_evaluated(self) -> Self:
        if self.report.protocol not in ("auto", *self.evaluation.protocols):
            raise ValueError(
                f"report.protocol is '{self.report.protocol}', which evaluation.protocols does not include"
            )
        return self
