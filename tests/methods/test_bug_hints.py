"""Mistakes of first methods, answered with what to write instead."""

import pytest
from own_code import EXAMPLE, SUITE
from suites import plan_of, problems_of

from msgunet.core.errors import UserError
from msgunet.suite.preflight import rehearse

RETURN = '"l1": self.options.l1 * l1_sum(outputs, targets)}'
NARROW = {"mine": {"file": "my_method.py", "options": {"filters": 4, "blocks": 1}}}
OPTIONS = "    Options = Options\n"


@pytest.mark.parametrize(
    "change",
    [
        '"l1": l1_sum(outputs, targets).item()}',
        '"l1": float(l1_sum(outputs, targets))}',
        '"l1": l1_sum(outputs, targets) if outputs[0].mean() > 0 else 0}',
        '"l1": outputs[0].tolist()}',
        '"l1": outputs[0].detach().numpy()}',
        '"l1": l1_sum([outputs[0].cpu()], targets)}',
        '"l1": outputs[0][outputs[0] > 0].mean()}',
    ],
)
def test_a_value_that_is_read_in_a_loss_is_said_in_one_line(method_folder, change):
    text = EXAMPLE.replace(RETURN, change)
    (method_folder / "my_method.py").write_text(text)
    with pytest.raises(UserError) as caught:
        rehearse(plan_of(method_folder, {**SUITE, "methods": NARROW}))
    line = next(line.strip() for line in text.splitlines() if change in line)
    (problem,) = caught.value.problems
    assert problem.startswith("mine (my_method.py:")
    assert "networks and losses must stay tensors: leave out .item(), float()" in problem
    assert problem.endswith(line)
    assert not caught.value.trace


def test_a_number_as_a_term_must_stay_a_tensor(method_folder):
    (method_folder / "my_method.py").write_text(EXAMPLE.replace(RETURN, '"l1": 0.5}'))
    with pytest.raises(UserError, match=r"a term must stay a tensor: leave out \.item\(\) and float\(\)"):
        rehearse(plan_of(method_folder, {**SUITE, "methods": NARROW}))


def test_a_class_that_does_not_name_its_options(method_folder):
    assert OPTIONS in EXAMPLE
    text = EXAMPLE.replace(OPTIONS, "")
    (method_folder / "my_method.py").write_text(text)
    hint = "the class Mine in my_method.py names no options, so it has none; write 'Options = Options' in the class"
    (problem,) = problems_of(method_folder, {**SUITE, "methods": NARROW})
    assert f"methods.mine.options: {hint}" in problem
    with pytest.raises(UserError) as caught:
        rehearse(plan_of(method_folder, SUITE))
    assert "; the class names no options: write 'Options = ...' in it (docs/own-method.md)" in caught.value.problems[0]


def test_a_mistyped_key_of_the_recipe(method_folder):
    text = EXAMPLE.replace('"learning_rate": 1e-4', '"learning_rat": 1e-4, "ema": 2')
    (method_folder / "my_method.py").write_text(text)
    line = next(i for i, line in enumerate(text.splitlines(), 1) if "def recipe" in line)
    (problem,) = problems_of(method_folder, SUITE)
    assert problem.startswith(f"mine (my_method.py:{line - 1}): in the recipe, ")
    assert "learning_rat: unknown key; did you mean 'learning_rate'?" in problem
    assert "ema: expected a number below 1 (got 2)" in problem
