"""A training seeds its own device: other GPUs, on which other code of this process may run, are left alone."""

import pytest
import torch
from conftest import make_settings, train

from msgunet.core.settings import TrainingSettings
from msgunet.device.pick import own_random_state, seed_random_numbers


def test_only_the_named_gpu_is_seeded(monkeypatch):
    """With simulated GPUs."""
    gpus = tuple(torch.Generator().manual_seed(0) for _ in range(3))
    monkeypatch.setattr(torch.cuda, "default_generators", gpus)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    with own_random_state(torch.device("cpu")):
        seed_random_numbers(torch.device("cuda", 1), 7)
        assert [gpu.initial_seed() for gpu in gpus] == [0, 7, 0]
        assert torch.initial_seed() == 7
        seed_random_numbers(torch.device("cuda"), 8)
        assert [gpu.initial_seed() for gpu in gpus] == [0, 7, 8]
        seed_random_numbers(torch.device("cpu"), 9)
        assert [gpu.initial_seed() for gpu in gpus] == [0, 7, 8]
        assert torch.initial_seed() == 9


def test_a_training_leaves_other_gpus_alone(tmp_path, data, compute, monkeypatch):
    """With VGG-19, dropout and sample grids."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("all GPUs are seeded"))
    training = TrainingSettings(epochs=1, decay_epochs=0, batch_size=2)
    for name in ("msgunet", "pix2pix"):
        folder = tmp_path / name
        train(folder, make_settings(data, name, training=training), compute.model_copy(update={"workers": 0}))
