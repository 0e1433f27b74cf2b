"""Speed up networks for inference: compute weights once and fold batch norm into convolutions."""

import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from msgunet.methods.norms import per_image_norms


def fold_parametrizations(network: nn.Module) -> None:
    """Replace parametrized weights, such as those under spectral norm, by their values; for evaluation mode."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if not is_parametrized(layer):
                continue
            # torch's `remove_parametrizations` would change the class, which copies of the layer share.
            folded = nn.Module.__new__(type_before_parametrizations(layer))
            folded.__dict__.update(layer.__dict__)
            folded._modules = {key: module for key, module in layer._modules.items() if key != "parametrizations"}
            folded._parameters = dict(layer._parameters)
            for weight in layer.parametrizations:
                folded.register_parameter(weight, nn.Parameter(getattr(layer, weight).detach(), requires_grad=False))
            setattr(parent, name, folded)


def fold_batch_norm(network: nn.Module) -> None:
    """Fold each batch norm into the convolution before it; for a network in evaluation mode.

    Norms that use batch statistics stay.
    """
    for sequence in network.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for i, (conv, norm) in enumerate(itertools.pairwise(sequence)):
            transposed = isinstance(conv, nn.ConvTranspose2d)
            if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
                continue
            if transposed or isinstance(conv, nn.Conv2d):
                sequence[i] = fuse_conv_bn_eval(conv, norm, transposed)
                sequence[i + 1] = nn.Identity()


def drop_cancelled_biases(network: nn.Module) -> None:
    """Remove the bias of each convolution before a norm that subtracts the image's own mean, which cancels it.

    On CUDA, adding a bias is a pass of its own. On a CPU it costs nothing, and results keep their last bits.
    """
    norms = {*per_image_norms(network)}
    for sequence in network.modules():
        if isinstance(sequence, nn.Sequential):
            for layer, norm in itertools.pairwise(sequence):
                if norm in norms and isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    layer.bias = None
