"""Evaluations of many images at once, stopped evaluations, and their precision."""

import json
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_data, make_settings, write_run
from interruptible import slowly
from PIL import Image
from test_evaluation import trained

from msgunet.core.attempts import measured_facts
from msgunet.core.errors import UserError
from msgunet.core.settings import ComputeSettings, EvaluationSettings, RunSettings, TrainingSettings
from msgunet.device import precision
from msgunet.evaluation import evaluate as module
from msgunet.evaluation import metrics
from msgunet.evaluation import trained as loading
from msgunet.evaluation.evaluate import evaluate, images_at_once
from msgunet.evaluation.metrics import filters, measure
from msgunet.evaluation.verify import verify
from msgunet.methods.generator import save_generator
from msgunet.methods.registry import build_method


def untrained(folder, settings: RunSettings):
    """Write an untrained run; return its settings file and its generator."""
    run, method = write_run(folder, settings), build_method(settings)
    torch.manual_seed(0)
    state = method.build_generator().state_dict()
    save_generator(folder / "generator.safetensors", method.published_state(state), settings)
    return run, folder / "generator.safetensors"


def test_rows_and_predictions_do_not_depend_on_the_number_of_jobs(tmp_path, compute, monkeypatch):
    data = make_data(tmp_path / "data", train=1, test=9)
    run, generator = untrained(tmp_path / "run", make_settings(data, "pix2pix", size=(48 // 3 * 4, 64)))
    real = module.measure

    def measure_late(*arguments):
        # The first image is the last one.
        time.sleep(0.05 if not late else 0)
        late.append(None)
        return real(*arguments)

    found = []
    for jobs in (1, 4):
        late = []
        monkeypatch.setattr(module, "measure", measure_late)
        out = tmp_path / f"jobs{jobs}"
        evaluate(run, generator, out, EvaluationSettings(), compute, None, jobs)
        predictions = [path.read_bytes() for path in sorted((out / "predictions").iterdir())]
        found.append(((out / "metrics.csv").read_bytes(), predictions))
    assert found[0] == found[1]
    frame = pd.read_csv(out / "metrics.csv")
    assert list(frame["id"].drop_duplicates()) == [f"p{i:02d}" for i in range(1, 10)]


def test_an_error_is_that_of_the_first_image(tmp_path, compute):
    data = make_data(tmp_path / "data", train=1, test=9)
    run, generator = untrained(tmp_path / "run", make_settings(data))
    for i in (4, 6):
        (data / "test" / f"p{i:02d}.target.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"p04\.target\.png: not an image"):
        evaluate(run, generator, tmp_path / "run", EvaluationSettings(), compute, None, 4)
    assert not (tmp_path / "run" / "metrics.csv").exists()
    assert {f"p{i:02d}.png" for i in (1, 2, 3)} <= {p.name for p in (tmp_path / "run" / "predictions").iterdir()}
    failed = json.loads((tmp_path / "run" / "failed-evaluate.json").read_text())
    assert "p04.target.png" in failed["why"]


def test_ctrl_c_leaves_whole_predictions_and_no_record(tmp_path, compute):
    data = make_data(tmp_path / "data", train=1, test=20)
    run, generator = untrained(tmp_path / "run", make_settings(data, "pix2pix"))
    out = tmp_path / "out"
    arguments = ["evaluate", "--run", str(run), "--generator", str(generator), "--out", str(out), "--jobs", "3"]
    command = slowly("msgunet.evaluation.evaluate", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(4):
            assert process.stdout.readline() == "half written\n"
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "interrupted"
    finished = list((out / "predictions").iterdir())
    assert 3 <= len(finished) < 20
    assert not list(out.rglob(".tmp-*"))
    for path in finished:
        Image.open(path).load()
    assert not (out / "metrics.csv").exists()
    assert not (out / "failed-evaluate.json").exists()


def test_the_height_of_the_strips_changes_no_bit(monkeypatch):
    draw = np.random.default_rng(0)
    for width, height in ((41, 41), (300, 201), (64, 400)):
        target = draw.integers(0, 256, (height, width, 3)).astype(np.uint8)
        output = (0.8 * target + draw.integers(0, 50, target.shape)).astype(np.uint8)
        rows = []
        # 2112: strips of an odd number of rows, at a width of 64.
        for values in (1, 2112, 5000, 10**9):
            monkeypatch.setitem(filters._STRIP, "cpu", values)
            rows.append(measure(output, target, ("ssim", "vif", "ms_ssim")))
        assert all(row == rows[0] for row in rows)


def test_images_at_once_share_the_cores():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [images_at_once(cpu, threads, 8) for threads in (1, 3, 16)] == [8, 2, 1]
    assert images_at_once(gpu, 4, 8) == 8
    assert images_at_once(cpu, 1) >= 1


def test_on_a_gpu_one_image_is_measured_after_the_other(monkeypatch):
    """Its memory is bounded so. The device is that of a CPU here, except for its name."""
    held = []

    class Lock:
        def __enter__(self):
            held.append("taken")

        def __exit__(self, *_):
            held.append("free")

    monkeypatch.setattr(metrics, "_on_gpu", Lock())
    image = np.zeros((4, 4, 3), np.uint8)
    measure(image, image, ("psnr",))
    assert held == []
    measure(image, image, ("psnr",), (0, 255), torch.device("meta"))
    assert held == ["taken", "free"]


@pytest.mark.parametrize(("wanted", "used"), [("fp32", "fp32"), ("bf16", "bf16"), ("training", "bf16")])
def test_networks_are_evaluated_in_the_precision_of_the_suite(tmp_path, data, compute, monkeypatch, wanted, used):
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    settings = make_settings(data, training=TrainingSettings(precision="bf16"))
    run, generator = untrained(tmp_path / "run", settings)
    evaluation = EvaluationSettings(precision=wanted)
    folder = tmp_path / "run"
    evaluate(run, generator, folder, evaluation, compute, None)
    recorded = json.loads((folder / "evaluation.json").read_text())
    assert recorded["network_precision"] == used
    assert recorded.get("precision", "fp32") == wanted
    expected = loading.load_run(settings, run, generator, compute, used).translated(
        np.asarray(Image.open(data / "test/p06.source.png")), "p06"
    )
    assert np.array_equal(np.asarray(Image.open(folder / "predictions/p06.png")), expected)
    found = verify(settings, folder, evaluation, compute, 3, "x")
    assert (found.problems, found.equal, found.agreeing, found.rows) == ([], 3, 6, 6)
    other = verify(settings, folder, EvaluationSettings(precision="fp32"), compute, 3, "x")
    assert (other.equal == 3) is (used == "fp32"), "outputs in another precision differ"
    (folder / "training.json").write_text(json.dumps({"settings": settings.identity, "finished": None}))
    covered = {p: bool(measured_facts(folder, settings, EvaluationSettings(precision=p))) for p in ("fp32", wanted)}
    assert covered == {"fp32": wanted == "fp32", wanted: True}, "another precision is another evaluation"


def test_reference_rows_are_exact_in_any_precision(tmp_path, data, compute, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    run, generator = trained(tmp_path / "run", make_settings(data, "copy"), compute)
    evaluate(run, generator, tmp_path / "run", EvaluationSettings(precision="bf16"), compute, None)
    source, output = (Image.open(tmp_path / name) for name in ("data/test/p06.source.png", "run/predictions/p06.png"))
    assert np.array_equal(np.asarray(output), np.asarray(source))
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["network_precision"] == "fp32"


def test_a_precision_that_the_device_does_not_have_is_refused(tmp_path, data, monkeypatch):
    run, generator = untrained(tmp_path / "run", make_settings(data))
    compute = ComputeSettings(device="cpu")
    with pytest.raises(UserError, match=r"evaluation\.precision: tf32 is for CUDA GPUs; on a CPU, use fp32 or bf16"):
        evaluate(run, generator, tmp_path / "run", EvaluationSettings(precision="tf32"), compute, None)
    monkeypatch.setattr(precision, "has_bf16", lambda _: False)
    with pytest.raises(UserError, match=r"evaluation\.precision: this CPU has no bf16 instructions; use fp32"):
        evaluate(run, generator, tmp_path / "run", EvaluationSettings(precision="bf16"), compute, None)
