"""The networks of metrics, from published weights that are checked by their hash."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from msgunet.core.errors import UserError
from msgunet.core.metrics import METRICS, enumerated, weights_of
from msgunet.core.settings import DataSettings
from msgunet.data.fetch import check_file
from msgunet.methods import weights


def load_networks(metrics: Sequence[str], files: DataSettings, device: torch.device) -> dict[str, nn.Module]:
    """Return the network of each metric that has one, in single precision.

    Where TF32 is allowed on a GPU, networks are in double precision, since single precision would be TF32 there. Call
    it after the precision of generators is set.

    Args:
        metrics: names of metrics.
        files: where the weights are.
        device: for which the networks are.

    Raises:
        UserError: weights are missing or not the published files; all are listed.

    """
    needed = {key: Path(getattr(files, key)) for key in weights_of(metrics)}
    if not needed:
        return {}
    names = enumerated([METRICS[metric].name for metric in metrics if METRICS[metric].weights])
    problems = weights.missing(needed, names)
    for key, path in needed.items():
        if path.is_file() and (problem := check_file(path, weights.WEIGHTS[key])):
            problems.append(f"{path}: {problem}; delete it, and 'msgunet fetch {key}' downloads the published file")
    if problems:
        raise UserError(*problems)
    states = {key: torch.load(path, map_location="cpu", weights_only=True) for key, path in needed.items()}
    tf32 = device.type == "cuda" and torch.backends.cudnn.allow_tf32
    dtype = torch.float64 if tf32 else torch.float32
    # Only here: piq imports much that the other metrics do not need.
    from msgunet.evaluation.metrics import perceptual

    return {
        metric: getattr(perceptual, metric)(*(states[key] for key in METRICS[metric].weights)).to(device, dtype)
        for metric in metrics
        if METRICS[metric].weights
    }
