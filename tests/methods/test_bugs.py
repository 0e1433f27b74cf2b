"""Errors in the code of a custom method: one line with the method, the place and what is wrong, then the traceback."""

import json
from multiprocessing import forkserver

import pytest
import torch
import yaml
from conftest import make_image, write_run
from own_code import EXAMPLE, SUITE
from suites import plan_of

from msgunet.cli.main import main
from msgunet.core.attempts import state_of
from msgunet.core.bugs import bug_in
from msgunet.core.errors import UserError
from msgunet.core.settings import ComputeSettings, CostSettings, EvaluationSettings, Network, RunSettings
from msgunet.cost.count import timing
from msgunet.device.measuring import in_new_process
from msgunet.methods import method_file
from msgunet.methods.generator import save_generator
from msgunet.methods.registry import build_method
from msgunet.suite.preflight import rehearse


@pytest.fixture(name="folder")
def _folder(method_folder):
    return method_folder


def edited(*changes):
    text = EXAMPLE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def line_of(text, part):
    return next(i for i, line in enumerate(text.splitlines(), 1) if part in line)


def suite_of_two():
    """A suite with two entries of the same method."""
    entry = {"file": "my_method.py", "method": "mine"}
    methods = {"a": {**entry, "options": {"filters": 4, "blocks": 1}}, "b": {**entry, "options": {"filters": 8}}}
    return {"datasets": SUITE["datasets"], "methods": methods}


RETURN_LOSSES = '        return {"gan": least_squares(scores, True), "l1": self.options.l1 * l1_sum(outputs, targets)}'
LISTS = "a list where a tensor is expected; sources, targets and outputs are lists with one tensor per scale"
BUGS = {
    "tensor, no list": (
        [("return [self.layers(sources[0])]", "return self.layers(sources[0])")],
        "def forward(self, sources)",
        "forward returned a tensor of shape (1, 3, 64, 64); expected a list with one tensor (N, C, H, W) per scale",
    ),
    "list as tensor": ([("layers(sources[0])", "layers(sources)")], "self.layers(sources)", LISTS),
    "list in a loss": (
        [("l1_sum(outputs, targets)}", "nn.functional.l1_loss(outputs, targets)}")],
        "nn.functional.l1_loss",
        LISTS,
    ),
    "nothing": (
        [("        return [self.layers", "        [self.layers")],
        "def forward(self, sources)",
        "forward returned no",
    ),
    "no network": (
        [("        return discriminator\n", "")],
        "def build_discriminator",
        "build_discriminator returned not",
    ),
    "losses, no dict": (
        [(RETURN_LOSSES, "        return least_squares(scores, True)")],
        "def generator_losses",
        "generator_losses returned a tensor of shape (); expected a dictionary of scalars",
    ),
    "losses, no scalar": (
        [("self.options.l1 * l1_sum(outputs, targets)", "(outputs[0] - targets[0]).abs()")],
        "def generator_losses",
        "generator_losses returned a tensor of shape (1, 3, 64, 64) as the term 'l1'; expected a dictionary of scalars",
    ),
    "losses, a number": (
        [("0.5 * least_squares(real, True)}", "0.5}")],
        "def discriminator_losses",
        "discriminator_losses returned a value of type float as the term 'd_real'",
    ),
    "no gradient": (
        [
            ("def discriminator_losses", "@torch.no_grad()\n    def discriminator_losses"),
            ("import nn", "import nn\nimport torch"),
        ],
        "@torch.no_grad()",
        "no term of discriminator_losses depends on the discriminator's weights",
    ),
    "scores": (
        [
            (
                "class Options",
                "class Judge(PatchGAN):\n    def forward(self, _, x):\n        return x[0]\n\n\nclass Options",
            ),
            ("ScaleDiscriminators([PatchGAN(sum(self.channels), self.options.filters)])", "Judge(3, 4)"),
            ("title =", "generator_first = True\n    title ="),
        ],
        "def forward(self, _, x)",
        "the discriminator's forward returned a tensor of shape (1, 3, 64, 64); with generator_first, expected a list",
    ),
    "channels": (
        [("Block(filters)", "Block(2 * filters)")],
        "x + self.body(x)",
        "layers do not fit: Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)) takes 8 channels, but its "
        "input has 4 (shape [1, 4, 16, 16])",
    ),
    "channels after a transposed convolution": (
        [("ConvTranspose2d(filters,", "ConvTranspose2d(3 * filters,")],
        "self.layers(sources[0])",
        "layers do not fit: ConvTranspose2d(12, 3, kernel_size=(8, 8), stride=(4, 4), padding=(2, 2)) takes 12 ch",
    ),
    "norm": (
        [("nn.BatchNorm2d(channels), nn.ReLU()", "nn.BatchNorm2d(2 * channels), nn.ReLU()")],
        "x + self.body(x)",
        "layers do not fit: BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True",
    ),
    "linear": (
        [("return x + self.body(x)", "return x + nn.Linear(5, 5)(self.body(x))")],
        "nn.Linear(5, 5)",
        "layers do not fit: Linear(in_features=5, out_features=5, bias=True) takes 5 values, but its input has 16",
    ),
    "sum": (
        [("return x + self.body(x)", "return x + self.body(x)[:, :3]")],
        "self.body(x)[:, :3]",
        "shapes do not fit: one tensor has shape [1, 4, 16, 16], the other [1, 3, 16, 16]",
    ),
    "output": (
        [("ConvTranspose2d(filters, target", "Conv2d(filters, target")],
        "def forward(self, sources)",
        "the outp",
    ),
    "anything": ([("[0][-1]\n        return {", "[1][-1]\n        return {")], "[1][-1]", "IndexError: list index out"),
    "import": (
        [("import nn", "import nn, no_such")],
        "import nn, no_such",
        "ImportError: cannot import name 'no_such'",
    ),
    "missing": (
        [("def generator_losses", "def generator_loss")],
        "class Mine",
        "class Mine does not define generator_losses (see docs/own-method.md); "
        "did you mean 'generator_loss' to be 'generator_losses'?",
    ),
    "recipe": (
        [('return {"learning_rate": 1e-4', 'return 1 / 0, {"learning_rate": 1e-4')],
        "1 / 0",
        "ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_check_names_the_method_the_line_and_what_is_wrong_once(folder, capsys, bug):
    changes, part, words = BUGS[bug]
    text = edited(*changes)
    (folder / "my_method.py").write_text(text)
    (folder / "small.yaml").write_text(yaml.safe_dump(suite_of_two()))
    assert main(["check", "small.yaml"]) == 2
    first, *others = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: mine (my_method.py:{line_of(text, part)}): {words}")
    assert not any(line.startswith("error: ") for line in others), "said once, not for each entry"
    frames = [line for line in others if line.startswith("  File ")]
    assert all("my_method.py" in line for line in frames[:1]), "the traceback begins at the user's line"


def test_errors_of_two_files_are_reported_together(folder):
    for name, change in (("one", ("sources[0]", "sources")), ("two", ("[self.layers(sources[0])]", "3"))):
        (folder / f"{name}.py").write_text(edited(change))
        method_file.trust(f"{name}.py")
    suite = suite_of_two()
    for key, name in (("a", "one"), ("b", "two")):
        suite["methods"][key]["file"] = f"{name}.py"
    with pytest.raises(UserError) as caught:
        rehearse(plan_of(folder, suite))
    assert ["one.py" in caught.value.problems[0], "two.py" in caught.value.problems[1]] == [True, True]


def test_a_missing_file_is_said_once_for_all_its_entries(folder):
    (folder / "my_method.py").unlink()
    with pytest.raises(UserError) as caught:
        plan_of(folder, suite_of_two())
    [problem] = caught.value.problems
    assert "methods.a.file, methods.b.file: my_method.py does not exist" in problem


def test_an_error_in_a_module_next_to_the_file_names_the_module(folder):
    (folder / "my_layers.py").write_text("def first(images):\n    return images.shape\n")
    (folder / "my_method.py").write_text(
        "import my_layers\n" + edited(("self.layers(sources[0])", "my_layers.first(sources)"))
    )
    with pytest.raises(UserError, match=r"^mine \(my_layers.py:2\): a list where a tensor is expected"):
        rehearse(plan_of(folder, suite_of_two()))


def test_an_error_of_the_project_is_not_the_methods(folder, monkeypatch):
    (folder / "my_method.py").write_text(EXAMPLE)
    (folder / "small.yaml").write_text(yaml.safe_dump(suite_of_two()))
    monkeypatch.setattr("msgunet.training.rehearsal.step_needs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["check", "small.yaml"])


@pytest.fixture
def broken(trained_method, monkeypatch):
    """A folder with a published generator and a run, of a method whose code only fails on images, not on shapes."""
    text = edited(("return x + self.body(x)", "return x + self.body(x)[:, : None if x.is_meta else 3]"))
    (trained_method / "my_method.py").write_text(text)
    monkeypatch.setattr(method_file, "_loaded", {})
    code = method_file.load_method_file("my_method.py").code
    before = settings_in(trained_method)
    settings = before.model_copy(update={"code": code})
    state = build_method(settings).build_generator().state_dict()
    save_generator(trained_method / "run" / "generator.safetensors", state, settings)
    write_run(trained_method / "run", settings)
    make_image(0, 64, 64).save(trained_method / "photo.png")
    return trained_method, line_of(text, "x.is_meta"), settings


def settings_in(folder):
    return RunSettings.model_validate(json.loads((folder / "run" / "run.json").read_text()))


@pytest.mark.parametrize("verb", ["train", "evaluate", "translate", "export"])
def test_every_verb_that_runs_a_method_names_its_error(broken, capsys, verb):
    folder, line, settings = broken
    generator, run = "run/generator.safetensors", "run/run.json"
    words = {
        "train": ["--run", run, "--out", "new"],
        "evaluate": ["--run", run, "--generator", generator, "--out", "new"],
        "translate": [generator, "photo.png", "--out", "out", "--device", "cpu"],
        "export": [generator],
    }[verb]
    assert main([verb, *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    # Progress comes before it.
    [first] = [text for text in lines if text.startswith("error: ")]
    assert first.startswith(f"error: mine (my_method.py:{line}): shapes do not fit: one tensor has")
    assert lines[lines.index(first) + 1].startswith("Traceback")
    if verb == "train":
        state = state_of(folder / "new", settings, EvaluationSettings())
        assert (state.status, state.why) == ("failed", first.removeprefix("error: "))
        assert main([verb, *words, "--attempt", "2"]) == 2
        assert "not tried again, because the error would come again: mine (my_method" in capsys.readouterr().err


def test_an_error_in_a_new_process_keeps_its_place(broken):
    _, line, settings = broken
    # A fork server that an earlier test started has that test's environment.
    forkserver._forkserver._stop()
    keys = ("entry", "method", "size", "options", "file", "code")
    network = Network(part="generator", used=True, **{key: getattr(settings, key) for key in keys})
    with pytest.raises(UserError, match=rf"^mine \(my_method.py:{line}\): shapes do not fit"):
        in_new_process("mine", timing, network, CostSettings(), ComputeSettings(device="cpu"))


def test_too_little_memory_and_a_full_disk_are_no_bugs(trained_method, monkeypatch, compute):
    """They can occur while the method's own lines run."""
    settings = settings_in(trained_method)
    method = build_method(settings)
    generator = method.build_generator()
    for error, expected in (
        (RuntimeError("CUDA out of memory"), None),
        (OSError(28, "No space left on device"), None),
        (KeyError("x"), "KeyError: 'x'"),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(generator.layers, "forward", fail)
        with pytest.raises(type(error)) as caught:
            generator([torch.zeros(1, 3, 64, 64)])
        bug = bug_in(caught.value)
        assert (bug and bug.text) == expected
