"""What is wrong with a suite is said in the words of the file, not in pydantic's."""

import pytest
from suites import GOOD, problems_of

TWICE = [
    ("seeds", [0, 0], "seeds: 0 is listed twice"),
    ("evaluation", {"metrics": ["psnr", "psnr"]}, "evaluation.metrics: psnr is listed twice"),
    ("evaluation", {"protocols": ["full", "native", "full"]}, "evaluation.protocols: full is listed twice"),
    ("ablation", {"methods": ["msgunet", "msgunet"]}, "ablation.methods: msgunet is listed twice"),
    ("methods", {"pan": {"datasets": ["bluemarble"] * 2}}, "methods.pan.datasets: bluemarble is listed twice"),
    ("methods", {"pan": {"grid": {"width": [1, 2, 1]}}}, "methods.pan.grid.width: 1 is listed twice"),
]


@pytest.mark.parametrize(("section", "value", "expected"), TWICE, ids=[text for _, _, text in TWICE])
def test_a_value_that_is_listed_twice_is_refused(tmp_path, section, value, expected):
    (problem,) = problems_of(tmp_path, {**GOOD, section: value})
    assert expected in problem


WORDS = [
    ("seeds", 2, "seeds: expected a list such as [0, 1] (got 2)"),
    ("seeds", [], "seeds: it is empty, but needs at least one value"),
    ("seeds", ["a"], "seeds.0: expected a whole number (got 'a')"),
    ("seeds", [0.5], "seeds.0: expected a whole number (got 0.5)"),
    ("methods", {}, "methods: it is empty, but needs at least one value"),
    ("methods", [], "methods: expected keys with values, as in 'key: value' (got [])"),
    ("cost", False, "cost: expected a section with keys: repeats, warmup (got false)"),
    ("methods", {"pan": 3}, "methods.pan: expected a section with keys: method, file, title, size, datasets"),
    ("methods", {"pan": {"size": 64}}, "methods.pan.size: expected a list such as [256, 256] (got 64)"),
    ("methods", {"pan": {"size": [64]}}, "methods.pan.size.1: this value is missing"),
    ("methods", {"pan": {"size": [64] * 3}}, "methods.pan.size: expected 2 values, but there are 3"),
    ("methods", {"pan": {"title": "x" * 81}}, "methods.pan.title: expected at most 80 characters"),
    ("training", {"flip": "perhaps"}, "training.flip: expected true or false (got 'perhaps')"),
    ("training", {"precision": "fp23"}, "expected 'fp32', 'tf32' or 'bf16' (got 'fp23'); did you mean 'fp32'?"),
    ("training", {"ema": 1}, "training.ema: expected a number below 1 (got 1)"),
    ("training", {"learning_rate": [1]}, "training.learning_rate: expected a number (got [1])"),
    ("data", {"mirror": 3}, "data.mirror: expected a text (got 3)"),
    ("data", {"mirror": 3}, "data.mirror: expected keys with values, as in 'key: value' (got 3)"),
    ("perceptual", {"width": 0.5}, "perceptual: ImageNet weights need width 1"),
]


@pytest.mark.parametrize(("section", "value", "expected"), WORDS, ids=[text[:50] for _, _, text in WORDS])
def test_what_is_wrong_is_said_in_the_files_words(tmp_path, section, value, expected):
    problems = problems_of(tmp_path, {**GOOD, section: value})
    assert any(expected in problem for problem in problems), problems
    assert not [problem for problem in problems if "Input should" in problem or "valid" in problem]
