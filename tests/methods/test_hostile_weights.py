"""Weights files that are damaged or made to harm: one error each, no code executed, nothing large allocated."""

import json
import struct
from pathlib import Path

import pytest
import torch
from conftest import ROOT, make_settings
from safetensors.torch import load_file, save_file

import msgunet
from msgunet.core.errors import UserError
from msgunet.core.files import canonical_json
from msgunet.methods.generator import _METADATA, load_generator

GENERATOR = ROOT / "tests" / "fixtures" / "25f1304" / "generator.safetensors"
CANARY = """
from pathlib import Path
Path({path!r}).write_text("executed")
from msgunet import Method, register_method

@register_method("evil")
class Evil(Method):
    title = "Evil"
"""


def settings_of(path: Path = GENERATOR) -> dict:
    header = path.read_bytes()[8 : 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]]
    return json.loads(json.loads(header)["__metadata__"][_METADATA])


def changed(path: Path, settings: dict | None = None, tensors: dict | None = None) -> Path:
    """The fixture's generator with other settings or tensors."""
    text = canonical_json({**settings_of(), **(settings or {})})
    save_file(load_file(GENERATOR) if tensors is None else tensors, path, {_METADATA: text})
    return path


@pytest.fixture
def canary(tmp_path):
    """A Python file that leaves a mark where it is executed, and the mark."""
    mark = tmp_path / "mark"
    file = tmp_path / "evil.py"
    file.write_text(CANARY.format(path=str(mark)))
    return file, mark


@pytest.mark.parametrize("relative", [False, True])
def test_a_file_named_in_the_metadata_is_not_executed(tmp_path, canary, monkeypatch, relative):
    file, mark = canary
    monkeypatch.chdir(tmp_path)
    named = {"file": file.name if relative else str(file), "code": "00000000", "method": "evil", "options": {}}
    weights = changed(tmp_path / "weights.safetensors", named)
    with pytest.raises(UserError, match=r"evil.*no reason to execute it: pass its Python file.*--method FILE"):
        load_generator(weights, "cpu")
    with pytest.raises(UserError, match=r"evil\.py has changed since"):
        load_generator(weights, "cpu", method_file=file)
    assert not mark.exists(), "the hash is compared before anything is executed"


@pytest.mark.parametrize("verb", ["train", "evaluate", "ablate", "gradients"])
def test_a_file_named_in_a_runs_settings_is_not_executed(tmp_path, canary, capsys, verb):
    from msgunet.cli.main import main

    file, mark = canary
    settings = make_settings(tmp_path, "msgunet").model_dump(mode="json")
    run = tmp_path / "run.json"
    run.write_text(json.dumps({**settings, "file": str(file), "code": "00000000", "method": "evil", "options": {}}))
    generator = ["--generator", str(GENERATOR)] if verb in ("evaluate", "ablate") else []
    (tmp_path / "manifest.csv").write_text("")
    assert main([verb, "--run", str(run), "--out", str(tmp_path / "out" / "x"), *generator]) == 2
    assert f"pass it yourself: --method {file}" in capsys.readouterr().err
    assert main([verb, "--run", str(run), "--out", str(tmp_path / "out" / "x"), *generator, "--method", str(file)]) == 2
    assert "has changed since" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"options": {"width": 40.0}}, r"tensor '.*' is F32 \[.*\], but its network has F32 \["),
        ({"options": {"width": 1e300}}, "settings describe no network that can be built"),
        ({"options": {"levels": 10**9}}, "levels reduce 64 pixels to less than 2"),
        ({"options": {"levels": 9}}, "levels reduce 64 pixels to less than 2"),
        ({"options": {"widht": 1}}, "options of method 'msgunet' are wrong: widht: Extra inputs are not permitted"),
        (
            {"options": {"width": "wide"}},
            "options of method 'msgunet' are wrong: width: Input should be a valid",
        ),
        ({"size": [65, 64]}, "not divisible by"),
        ({"size": [10**9, 64]}, r"its settings are not those of a run of this version \(size"),
        ({"method": "nothing"}, "unknown method 'nothing'"),
        ({"method": "../evil"}, r"its settings are not those of a run of this version \(method"),
        ({"file": "a\0b", "code": "1", "method": "x"}, "no reason to execute it"),
        ({"file": "~root/x.py", "code": "1", "method": "x"}, "no reason to execute it"),
        ({"method": "pix2pixhd", "options": {"blocks": 10**9}}, "blocks: Input should be less than or equal to"),
    ],
)
def test_settings_that_do_not_fit_are_one_error(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        load_generator(changed(tmp_path / "weights.safetensors", settings), "cpu")


def test_tensors_that_do_not_fit_are_named(tmp_path):
    tensors = load_file(GENERATOR)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    cases = {
        f"tensor '{name}' is missing": {k: v for k, v in tensors.items() if k != name},
        "tensor 'extra' is not part of its network": {**tensors, "extra": torch.zeros(2)},
        f"tensor '{name}' is F32 .*, but its network has F32": {**tensors, name: tensors[name][:1].clone()},
        f"tensor '{name}' is F64 ": {**tensors, name: tensors[name].double()},
        rf"NaN or infinite values \(tensor '{name}'\)": {**tensors, name: tensors[name] * float("nan")},
    }
    for number, (message, changed_tensors) in enumerate(cases.items()):
        with pytest.raises(UserError, match=message):
            load_generator(changed(tmp_path / f"{number}.safetensors", tensors=changed_tensors), "cpu")


def test_files_that_are_no_generators(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.safetensors: no such file"):
        msgunet.load(tmp_path / "nothing.safetensors")
    for content in (b"", b"{}", b"\xff" * 100, struct.pack("<Q", 2**62) + b"{}", GENERATOR.read_bytes()[:500]):
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="not a readable generator"):
            msgunet.load(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is a folder; name the generator"):
        msgunet.load(tmp_path)
