"""What is written beside every result: software, commit, device, time."""

import datetime
from typing import Any

import torch

from msgunet.core import provenance


def device_name(device: torch.device) -> str:
    """The name of a device, as tables give it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else provenance.cpu_name()


def facts(device: torch.device, threads: int) -> dict[str, Any]:
    """Versions, commit, time, and the device with the number of CPU threads."""
    return {
        "commit": provenance.commit(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": provenance.versions(),
        "device": device_name(device),
        "device_type": device.type,
        "threads": threads,
    }


def flat_facts(device: torch.device, threads: int) -> dict[str, Any]:
    """`facts` for the columns of a table, the versions in one text."""
    found = facts(device, threads)
    return {**found, "versions": " ".join(f"{name}={text}" for name, text in found["versions"].items())}
