"""Networks made faster for inference: weights computed once, batch norm folded into convolutions."""

import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations


def fold_parametrizations(network: nn.Module) -> None:
    """In a network in evaluation mode, compute weights once that are computed from others, as spectral norm's are."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if not is_parametrized(layer):
                continue
            # Not torch's `remove_parametrizations`, which changes the class that copies of the layer share.
            plain = nn.Module.__new__(type_before_parametrizations(layer))
            plain.__dict__.update(layer.__dict__)
            plain._modules = {key: module for key, module in layer._modules.items() if key != "parametrizations"}
            plain._parameters = dict(layer._parameters)
            for weight in layer.parametrizations:
                plain.register_parameter(weight, nn.Parameter(getattr(layer, weight).detach(), requires_grad=False))
            setattr(parent, name, plain)


def fold_batch_norm(network: nn.Module) -> None:
    """In a network in evaluation mode, let each convolution do the work of the batch norm after it.

    Norms that take the statistics of the batch stay.
    """
    for sequence in network.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for i, (conv, norm) in enumerate(itertools.pairwise(sequence)):
            turned = isinstance(conv, nn.ConvTranspose2d)
            if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
                continue
            if turned or isinstance(conv, nn.Conv2d):
                sequence[i] = fuse_conv_bn_eval(conv, norm, turned)
                sequence[i + 1] = nn.Identity()
