"""`msgunet check SUITE --gpu`: what it finds on a device that computes wrongly; here the CPU takes the GPU's place."""

import pytest
import torch
from conftest import make_settings

from msgunet.cli.main import main
from msgunet.cost import check_device
from msgunet.cost.check_device import check_device as lines_of
from msgunet.methods.inference import prepare

CPU = torch.device("cpu")


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(check_device, "gpu", lambda: CPU)


def test_a_device_that_computes_as_the_cpu_is_right():
    runs = [make_settings("unused", name) for name in ("msgunet", "pix2pix")]
    # The same network at a size that is halved, and a training that differs.
    runs += [make_settings("unused", "msgunet", (64, 64), seed=3)]
    lines = list(lines_of(runs, CPU))
    assert [advice for _, advice in lines] == [""] * len(lines)
    texts = [line for line, _ in lines]
    assert sum("msgunet at 64x64, one training step" in text for text in texts) == 1
    assert sum("pix2pix at 64x64, one image in bf16" in text for text in texts) == 1


def test_wrong_outputs_and_losses_are_found(monkeypatch, on_cpu, capsys):
    calls = []

    def spoiled(method, network, device, precision="fp32"):
        network = prepare(method, network, device, precision)
        calls.append(precision)
        if len(calls) > 1:
            with torch.no_grad():
                next(network.parameters()).mul_(1.1)
        return network

    monkeypatch.setattr(check_device, "prepare", spoiled)
    step, steps = check_device.step, []

    def nan(*arguments):
        losses = step(*arguments)
        steps.append(1)
        return losses if len(steps) == 1 else {name: value * float("nan") for name, value in losses.items()}

    monkeypatch.setattr(check_device, "step", nan)
    assert main(["check", "tiny", "--gpu"]) == 2
    captured = capsys.readouterr()
    found = [line for line in captured.out.splitlines() if line.startswith("WRONG")]
    assert any("one image in fp32" in line for line in found)
    assert any("one training step: largest error of a loss nan" in line for line in found)
    assert "results on this GPU would be wrong" in captured.err


def test_an_exception_of_one_network_does_not_hide_the_next(monkeypatch):
    output = check_device._output

    def failing(method, device, precision):
        if method.title == "Pix2Pix":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return output(method, device, precision)

    monkeypatch.setattr(check_device, "_output", failing)
    runs = [make_settings("unused", name) for name in ("pix2pix", "msgunet")]
    lines = list(lines_of(runs, CPU))
    assert lines[0][0].startswith("pix2pix at 64x64: CUDA out of memory")
    assert "other programs" in lines[0][1]
    assert all(advice == "" for _, advice in lines[1:])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told_why(capsys):
    assert main(["check", "tiny", "--gpu"]) == 2
    error = capsys.readouterr().err
    assert "nvidia-smi" in error or "without CUDA" in error
