"""Settings files that cannot be read: the message fits every verb, and names the file and every problem."""

import pytest
from conftest import make_settings, write_run

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.core.files import read_settings
from msgunet.core.settings import ComputeSettings
from msgunet.methods.generator import save_generator
from msgunet.methods.registry import build_method


def test_a_missing_file_may_belong_to_a_suite_and_another_problem_does_not(tmp_path, capsys):
    arguments = ["evaluate", "--generator", "g", "--out", str(tmp_path), "--run"]
    assert main([*arguments, "typo.json"]) == 2
    assert "typo.json: no such file; if it belongs to a suite, 'snakemake -n" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert f"{tmp_path}: Is a directory" in errors
    assert "snakemake" not in errors


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\xff\xfe\x00", "file: Invalid JSON"), (b'{"threads": 0, "wrokers": 1}', "wrokers: Extra inputs")],
)
def test_a_damaged_file_is_named_with_its_problems(tmp_path, content, expected):
    path = tmp_path / "compute.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_settings(path, ComputeSettings)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
    assert expected in str(caught.value)


def test_evaluating_another_runs_generator_says_what_to_give(tmp_path, data, capsys):
    settings = make_settings(data, "pix2pix")
    generator = tmp_path / "generator.safetensors"
    method = build_method(settings)
    save_generator(generator, method.published_state(method.build_generator().state_dict()), settings)
    run = write_run(tmp_path, settings.model_copy(update={"seed": 1}))
    assert main(["evaluate", "--run", str(run), "--generator", str(generator), "--out", str(tmp_path / "out")]) == 2
    assert "give the run.json that it was trained with" in capsys.readouterr().err
