"""The facts that are recorded with every result: software, commit, device, time."""

import datetime
from typing import Any

import torch

from msgunet.core import provenance


def device_name(device: torch.device) -> str:
    """Return the name of a device, as tables print it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else provenance.cpu_name()


def facts(device: torch.device, threads: int) -> dict[str, Any]:
    """Return versions, commit, time, and the device with the number of CPU threads."""
    return {
        "commit": provenance.commit(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": provenance.versions(),
        "device": device_name(device),
        "device_type": device.type,
        "threads": threads,
    }


def flat_facts(device: torch.device, threads: int) -> dict[str, Any]:
    """Return `facts` as columns of a table, with all versions in one text."""
    nested = facts(device, threads)
    return {**nested, "versions": " ".join(f"{name}={text}" for name, text in nested["versions"].items())}
