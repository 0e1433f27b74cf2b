"""What a suite file may say: frozen models, whose descriptions are the reference of all keys (docs/suites.md)."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from msgunet.core.settings import (
    ComputeSettings,
    CostSettings,
    DataSettings,
    EvaluationSettings,
    Name,
    Pairs,
    PerceptualSettings,
    Size,
    Strict,
    TrainingSettings,
)


class DataSetEntry(Strict):
    """One data set of a suite."""

    kind: Name | None = Field(None, description="registered data set; by default the entry's own name")
    size: Size = Field(description="width and height that the images are prepared at")
    pairs: Pairs | None = Field(
        None, description="of training and of test pairs take only so many, spread evenly; by default all"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the data set's own settings")


class MethodEntry(Strict):
    """One row of the tables: a method with its settings."""

    method: Name | None = Field(None, description="registered method; by default the entry's own name")
    file: str | None = Field(
        None, min_length=1, description="Python file of your own that registers the method; by default the project's"
    )
    title: str | None = Field(None, max_length=80, description="how tables and figures call it")
    size: Size | None = Field(None, description="width and height the network works at; by default the data set's")
    datasets: tuple[Name, ...] | None = Field(None, description="only on these data sets; by default on all")
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own settings")
    training: TrainingSettings = Field(TrainingSettings(), description="overrides the suite's, key by key")


class AblationSettings(Strict):
    """Input against output resolution (the paper's Tables 2 and 3)."""

    methods: tuple[Name, ...] = Field((), description="entries with several scales")


class GradientSettings(Strict):
    """Gradient distribution with and without the intermediate outputs (the paper's Fig. 2)."""

    method: Name = Field("msgunet", description="entry that is trained both ways")
    dataset: Name = Field(description="entry that it is trained on")
    epochs: int = Field(20, ge=1, description="epochs at the constant learning rate (20 in the paper)")
    records: int = Field(20, ge=1, description="how often the gradients are recorded over the training")


class ReportSettings(Strict):
    """How results are shown; never changes a result."""

    examples: int = Field(4, ge=1, le=32, description="test images in the figure of images")
    resamples: int = Field(2000, ge=100, description="of the bootstrap behind the 95 % intervals")
    protocol: Literal["native", "full"] = Field("native", description="of the table that the demo prints")


class Suite(Strict):
    """A suite file."""

    description: str = Field("", description="one sentence, shown on the page")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        (0,), min_length=1, description="each entry is trained once with each on every data set"
    )
    datasets: dict[Name, DataSetEntry] = Field(min_length=1)
    methods: dict[Name, MethodEntry] = Field(min_length=1)
    training: TrainingSettings = Field(TrainingSettings(), description="overrides each method's recipe, key by key")
    perceptual: PerceptualSettings = PerceptualSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    ablation: AblationSettings = AblationSettings()
    gradients: GradientSettings | None = None
    cost: CostSettings = CostSettings()
    report: ReportSettings = ReportSettings()
    compute: ComputeSettings = ComputeSettings()
    data: DataSettings = DataSettings()

    @model_validator(mode="after")
    def _shown_protocol_is_measured(self) -> Self:
        if self.report.protocol not in self.evaluation.protocols:
            raise ValueError(f"report.protocol is '{self.report.protocol}', which evaluation.protocols leaves out")
        return self
