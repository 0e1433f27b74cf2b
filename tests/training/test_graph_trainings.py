"""Trainings with steps as a CUDA graph: phases, resumes, checkpoints, and the learning rate as a tensor."""

import copy
import json

import pytest
import torch
from conftest import make_settings, train
from test_graphs import Kept, prepared

from msgunet.core.settings import TrainingSettings
from msgunet.training import loop
from msgunet.training.state import TrainingState


@pytest.mark.parametrize("rate", [2e-4, 1e-3 / 3])
def test_a_rate_as_a_tensor_gives_the_update_of_a_number(rate):
    torch.manual_seed(0)
    weights = [torch.randn(7, 5).requires_grad_() for _ in range(2)]
    weights[1].data.copy_(weights[0].data)
    optimizers = [
        torch.optim.Adam([weight], value, (0.5, 0.999), fused=True)
        for weight, value in zip(weights, (rate, torch.tensor(rate, dtype=torch.float64)), strict=True)
    ]
    for i in range(4):
        gradient = torch.randn(7, 5)
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = gradient.clone()
            optimizer.found_inf = torch.tensor(float(i == 2))
            optimizer.step()
        assert torch.equal(*weights)


@pytest.mark.parametrize(("lr", "capturable"), [(5.0, False), (torch.tensor(5.0), True)])
def test_checkpoints_with_and_without_graphs_are_the_same(tmp_path, lr, capturable):
    """The rate is saved as a number, and one of either kind is loaded."""
    settings = make_settings("unused", "pix2pix")
    state = prepared("pix2pix", "cpu", None)[1]
    state.set_rate(0.5)
    state.save(tmp_path, settings)
    saved = torch.load(next(tmp_path.glob("step-*.pt")), weights_only=True)
    groups = [group for optimizer in saved["optimizers"].values() for group in optimizer["param_groups"]]
    assert {group["lr"] for group in groups} == {0.5}
    assert {type(group["lr"]) for group in groups} == {float}
    changed = copy.deepcopy(saved)
    for optimizer in changed["optimizers"].values():
        optimizer["param_groups"][0].update(lr=lr, capturable=capturable)
    changed["settings"] = json.dumps(settings.model_dump(mode="json"))
    state.load(changed, settings, tmp_path)
    state.set_rate(0.25)
    for optimizer in state.optimizers.values():
        assert (float(optimizer.param_groups[0]["lr"]), optimizer.param_groups[0]["capturable"]) == (0.25, False)


@pytest.mark.parametrize(("name", "records"), [("pix2pixhd_local", 0), ("msgunet", 2)])
def test_a_training_captures_each_phase_and_again_after_a_resume(tmp_path, data, compute, monkeypatch, name, records):
    training = TrainingSettings(epochs=2, decay_epochs=1, batch_size=1, ema=0.9)
    settings = make_settings(data, name, training=training, gradient_records=records)
    whole = train(tmp_path / "whole", settings, compute.model_copy(update={"cuda_graphs": "off"}))
    made, renew, step = [], TrainingState.renew_optimizers, loop.step

    def graph(*_):
        made.append(Kept())
        return made[-1]

    def remember(state, names):
        Kept.states = [state]
        renew(state, names)

    def stopped(*arguments):
        signals[-1].received = 15 if arguments[1].step == 9 else None
        return step(*arguments)

    signals, original = [], loop.Signals
    monkeypatch.setattr(loop, "Signals", lambda: signals.append(original()) or signals[-1])
    monkeypatch.setattr(loop, "graph_for", graph)
    monkeypatch.setattr(TrainingState, "renew_optimizers", remember)
    monkeypatch.setattr(loop, "step", stopped)
    with pytest.raises(loop.InterruptedTraining):
        train(tmp_path / "parts", settings, compute)
    monkeypatch.setattr(loop, "step", step)
    assert train(tmp_path / "parts", settings, compute) == whole
    phases = 3 if name == "pix2pixhd_local" else 1
    assert sum(graph.captures for graph in made) == phases + 1, "the phase that was resumed is captured again"
    assert all(graph.replays > 3 for graph in made)
    if records:
        same = [(tmp_path / name / "gradients.csv").read_text() for name in ("whole", "parts")]
        assert same[0] == same[1]
