"""The foretold time of a pass or step: its operations are counted on shapes, and limited by a device's best rates."""

import pandas as pd
import pytest
import torch
from conftest import ROOT
from torch import nn

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.cost.predict import needs
from msgunet.device.limits import Limits, foretold, read_limits
from msgunet.device.meter import Meter
from msgunet.suite.networks import trained_networks
from msgunet.suite.plan import load_plan

LIMITS = Limits({"fp32": 1.0, "tf32": 8.0, "bf16": 16.0}, 100.0, "a device")


def network(entry: str, size: tuple[int, int]):
    return next(
        run for run in trained_networks(load_plan("speed"), None, None) if (run.entry, run.size) == (entry, size)
    )


def test_each_operation_is_counted_as_cuda_runs_it():
    with torch.device("meta"):
        layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.2, inplace=True), nn.Flatten())
        image = torch.empty(1, 3, 16, 16, requires_grad=True)
        with Meter() as meter:
            output = layers(image)
            torch.empty_like(output)
            output.view(8, 256).sum().backward()
    source, target, weight = 4 * 3 * 256, 4 * 8 * 256, 4 * 8 * 27
    found = {name: (len(o.each), o.flop, o.bytes) for (name, precision), o in meter.operations.items()}
    assert {precision for _, precision in meter.operations} == {"fp32"}
    flop = 2 * 8 * 27 * 256
    assert found["convolution"] == (1, flop, source + weight + 32 + target)
    assert found["bias"] == (1, 0, 2 * target + 32)
    assert found["leaky_relu_"] == (1, 0, 2 * target), "it reads and writes the same tensor"
    assert found["sum"] == (1, 0, target + 4)
    calls, backward, _ = found["convolution_backward"]
    assert (calls, backward) == (1, 2 * flop), "the gradients of the image and of the weights"
    assert found["bias gradient"] == (1, 0, target + 32)
    assert not {"view", "empty_like", "expand", "detach"} & found.keys()


@pytest.mark.parametrize(
    ("entry", "precision", "calls", "gigabytes"),
    [
        ("msgunet", "bf16", 50, 5.0),
        ("pix2pixhd", "bf16", 125, 7.0),
        ("pix2pixhd_global", "bf16", 90, 9.1),
        ("msgunet", "tf32", 117, 22.7),
        ("pix2pixhd", "tf32", 126, 13.2),
        ("pix2pixhd", "fp32", 140, 17.1),
    ],
)
def test_inference_at_the_papers_size(entry, precision, calls, gigabytes):
    """Biases are counted. A change of the engine may lower the numbers."""
    found = needs(network(entry, (2048, 1024)), "inference", precision).operations
    assert sum(len(operation.each) for operation in found.values()) <= calls
    assert sum(operation.bytes for operation in found.values()) / 1e9 <= gigabytes


def test_a_call_takes_the_longer_of_arithmetic_and_bytes():
    with torch.device("meta"), Meter() as meter:
        large, small = torch.empty(1000, 1000), torch.empty(10, 10)
        large @ large
        small @ small
        large + large
    rows = foretold(meter.operations, "fp32", LIMITS).set_index("operation")
    assert rows.loc["mm", "ms"] == pytest.approx(2e9 / 1e12 * 1e3 + 800 / 100e9 * 1e3)
    assert rows.loc["add", "ms"] == pytest.approx(8e6 / 100e9 * 1e3)
    assert list(rows.index) == ["mm", "add"], "longest first"
    faster = foretold(meter.operations, "tf32", LIMITS).set_index("operation")
    assert faster.loc["mm", "precision"] == "tf32"
    assert faster.loc["add", "precision"] == "fp32"
    assert faster.loc["mm", "ms"] == pytest.approx(2e9 / 8e12 * 1e3 + 800 / 100e9 * 1e3)
    with pytest.raises(UserError, match="the rate in fp32 is not among the limits of a device: bf16"):
        foretold(meter.operations, "fp32", Limits({"bf16": 1.0}, 1.0, "a device"))


def test_a_step_includes_the_optimiser():
    found = needs(network("pix2pix", (256, 256)), "training", "bf16").operations
    adam = found["_fused_adam_", "fp32"]
    assert len(adam.each) == 2
    weights = 4 * (54_414_531 + 2_769_601)
    # It reads the weights, gradients and both moments, and writes all but the gradients.
    assert adam.bytes == pytest.approx((4 + 3) * weights, rel=0.15)


def test_a_step_of_the_papers_network_moves_little():
    found = needs(network("msgunet", (2048, 1024)), "training", "bf16").operations
    assert sum(operation.bytes for operation in found.values()) / 1e9 < 98
    assert sum(len(operation.each) for operation in found.values()) < 3000


def test_the_command_prints_totals_and_writes_every_row(working_folder, capsys):
    command = ["profile", "speed", "--entry", "pix2pix", "--size", "256", "256", "--precision", "bf16"]
    assert main([*command, "--predict", "h100", "--rows", "2", "--out", "rows.csv"]) == 0
    output = capsys.readouterr().out
    frame = pd.read_csv("rows.csv")
    assert list(frame.columns) == ["operation", "precision", "calls", "flop", "bytes", "ms"]
    assert f"{frame['calls'].sum()} operations, each at least one launch" in output
    assert f"({len(frame) - 2} more)" in output
    assert "Foretold, not measured" in output
    assert "NVIDIA H100" in output
    assert main([*command, "--predict", "h1000"]) == 2
    assert "no measured limits of 'h1000'; did you mean 'h100'?" in capsys.readouterr().err
    assert main([*command, "--predict", "rows.csv"]) == 2
    assert "rows.csv is not a table of 'msgunet bench' with the limits of a device" in capsys.readouterr().err


def test_options_that_would_be_ignored_are_refused(tmp_path, capsys):
    assert main(["plan", "tiny", "--predict", "h100", "--rate", "20"]) == 2
    assert "--speed, --rate and --predict are three ways to know the speed; give one" in capsys.readouterr().err
    command = ["profile", "speed", "--entry", "pix2pix", "--size", "256", "256", "--predict", "h100"]
    for extra in (["--way", "plain"], ["--repeats", "3"]):
        assert main([*command, *extra]) == 2
        assert "--predict counts the engine's operations and measures nothing; omit" in capsys.readouterr().err
    (tmp_path / "partial.csv").write_text(
        "precision,limit_tflop_per_s,bandwidth_gb_per_s,device,commit\nbf16,1,1,x,0\n"
    )
    assert main([*command, "--predict", str(tmp_path / "partial.csv")]) == 2
    assert "is not a table of 'msgunet bench' with the limits of a device" in capsys.readouterr().err


def test_limits_are_the_best_that_were_measured():
    frame = pd.read_csv(ROOT / "results" / "gpu" / "h100" / "speed" / "speed.csv")
    limits = read_limits("h100")
    assert limits.rates["bf16"] == frame[frame["precision"] == "bf16"]["limit_tflop_per_s"].max()
    assert limits.bandwidth == frame["bandwidth_gb_per_s"].max()


def test_a_forecast_for_a_device_without_measured_steps(capsys):
    assert main(["plan", "tiny", "--predict", "h100"]) == 0
    output = capsys.readouterr().out
    assert "time: foretold, not measured: each operation of a step at the limits of NVIDIA H100" in output
