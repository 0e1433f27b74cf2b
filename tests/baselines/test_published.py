"""The baseline networks compute the published functions.

Each test applies the weights of a network, layer by layer, in a reference function written from the publication's
definition. The reference functions fix details that parameter and MAC counts do not: padding, the order of norm and
activation, the place of dropout, the layers with a norm or bias, how skip connections join, and how images are pooled.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.networks import GlobalGenerator, LocalEnhancer, UNet
from msgunet.methods.networks import PatchGAN, PooledDiscriminators, pooled_half

torch.manual_seed(0)


class Weights:
    """Applies a network's convolutions and norms, each once, in order."""

    def __init__(self, network: nn.Module) -> None:
        self._layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d)]

    def conv(self, x: Tensor, stride: int, padding: int, bias: bool) -> Tensor:
        layer = self._layers.pop(0)
        assert type(layer) is nn.Conv2d
        assert (layer.bias is not None) == bias
        return F.conv2d(x, layer.weight, layer.bias, stride, padding)

    def up(self, x: Tensor, stride: int, padding: int, extra: int, bias: bool) -> Tensor:
        layer = self._layers.pop(0)
        assert type(layer) is nn.ConvTranspose2d
        assert (layer.bias is not None) == bias
        return F.conv_transpose2d(x, layer.weight, layer.bias, stride, padding, extra)

    def batch_norm(self, x: Tensor) -> Tensor:
        layer = self._layers.pop(0)
        assert type(layer) is nn.BatchNorm2d
        return F.batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=1e-5)

    def done(self) -> bool:
        return not self._layers


def reflect(x: Tensor, pixels: int) -> Tensor:
    return F.pad(x, (pixels,) * 4, mode="reflect")


def norm_relu(x: Tensor) -> Tensor:
    return F.relu(F.instance_norm(x, eps=1e-5))


def unet(network: UNet, x: Tensor, downs: int) -> Tensor:
    """Return the U-Net's output (Isola et al. 2017, 6.1.1, as in the authors' code).

    Down: C64 without norm; then LeakyReLU, convolution, batch norm; the innermost has no norm. Up: ReLU, transposed
    convolution, batch norm, dropout in the three blocks above the innermost; last ReLU, convolution with bias, tanh.
    The authors' LeakyReLU works in place, so their skip connections carry its result. The next ReLU makes both equal.
    """
    down, up = Weights(network.down), [Weights(part) for part in network.up]
    skips = [down.conv(x, 2, 1, bias=False)]
    for i in range(1, downs):
        x = down.conv(F.leaky_relu(skips[-1], 0.2), 2, 1, bias=False)
        skips.append(x if i == downs - 1 else down.batch_norm(x))
    x = skips.pop()
    for i in range(downs - 1, 0, -1):
        x = up[i].batch_norm(up[i].up(F.relu(x), 2, 1, 0, bias=False))
        if 4 <= i < downs - 1:
            x = F.dropout(x, 0.5, training=True)
        x = torch.cat((skips.pop(), x), 1)
    x = torch.tanh(up[0].up(F.relu(x), 2, 1, 0, bias=True))
    assert down.done()
    assert all(part.done() for part in up)
    return x


def patchgan(network: PatchGAN, x: Tensor, layers: int, norm: str, padding: int) -> list[Tensor]:
    """Return all layers' outputs.

    The layers are convolution and LeakyReLU; then blocks of convolution, norm and LeakyReLU, the last at stride 1; then
    a convolution. Convolutions before batch norm have no bias. With instance norm (Pix2Pix-HD), they have a bias and
    padding 2.
    """
    weights = Weights(network)
    outputs = [F.leaky_relu(weights.conv(x, 2, padding, bias=True), 0.2)]
    for i in range(1, layers + 1):
        x = weights.conv(outputs[-1], 2 if i < layers else 1, padding, bias=norm == "instance")
        x = weights.batch_norm(x) if norm == "batch" else F.instance_norm(x, eps=1e-5)
        outputs.append(F.leaky_relu(x, 0.2))
    outputs.append(weights.conv(outputs[-1], 1, padding, bias=True))
    assert weights.done()
    return outputs


def residual(weights: Weights, x: Tensor) -> Tensor:
    """Add to the input: reflection padding, convolution, norm, ReLU, reflection padding, convolution, norm."""
    y = norm_relu(weights.conv(reflect(x, 1), 1, 0, bias=True))
    return x + F.instance_norm(weights.conv(reflect(y, 1), 1, 0, bias=True), eps=1e-5)


def global_features(weights: Weights, x: Tensor, downs: int, blocks: int) -> Tensor:
    """Apply c7s1-64, 3x3 downsampling, residual blocks, 3x3 upsampling, output padding 1 (Wang et al., appendix)."""
    x = norm_relu(weights.conv(reflect(x, 3), 1, 0, bias=True))
    for _ in range(downs):
        x = norm_relu(weights.conv(x, 2, 1, bias=True))
    for _ in range(blocks):
        x = residual(weights, x)
    for _ in range(downs):
        x = norm_relu(weights.up(x, 2, 1, 1, bias=True))
    return x


def global_generator(network: GlobalGenerator, x: Tensor, downs: int, blocks: int) -> Tensor:
    weights = Weights(network)
    x = global_features(weights, x, downs, blocks)
    x = torch.tanh(weights.conv(reflect(x, 3), 1, 0, bias=True))
    assert weights.done()
    return x


def local_enhancer(network: LocalEnhancer, x: Tensor, downs: int, blocks: int, local_blocks: int) -> Tensor:
    """Add the global generator's features of the average-pooled source before the enhancer's residual blocks."""
    coarse, entry, out = Weights(network.coarse), Weights(network.entry), Weights(network.exit)
    half = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
    y = norm_relu(entry.conv(reflect(x, 3), 1, 0, bias=True))
    y = norm_relu(entry.conv(y, 2, 1, bias=True)) + global_features(coarse, half, downs, blocks)
    for _ in range(local_blocks):
        y = residual(out, y)
    y = norm_relu(out.up(y, 2, 1, 1, bias=True))
    y = torch.tanh(out.conv(reflect(y, 3), 1, 0, bias=True))
    assert coarse.done()
    assert entry.done()
    assert out.done()
    return y


def random(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64) * 2 - 1


def randomised(network: nn.Module) -> nn.Module:
    """Convert to double precision, with random weights and biases, so that none is zero or one."""
    for parameter in network.double().parameters():
        nn.init.normal_(parameter, 0.05, 0.2)
    return network


def test_the_unet_is_pix2pix():
    network = randomised(UNet(8, 0.0625)).train()
    x = random(1, 3, 256, 256)
    torch.manual_seed(7)
    ours = network([x])[0]
    torch.manual_seed(7)
    assert torch.allclose(ours, unet(network, x, 8), atol=1e-12)
    dropouts = [i for i, part in enumerate(network.up) if any(isinstance(m, nn.Dropout) for m in part)]
    assert dropouts == [4, 5, 6], "the three blocks above the innermost"


@pytest.mark.parametrize(("norm", "padding"), [("batch", 1), ("instance", 2)])
def test_the_discriminators_are_the_published_ones(norm, padding):
    network = randomised(PatchGAN(6, 8, norm=norm, padding=padding)).train()
    x = random(2, 6, 64, 96)
    for ours, theirs in zip(network(x), patchgan(network, x, 3, norm, padding), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("downs", [3, 4])
def test_the_global_generator_is_pix2pixhd(downs):
    network = randomised(GlobalGenerator(4, downs, 2))
    x = random(1, 3, 64, 96)
    assert torch.allclose(network([x])[0], global_generator(network, x, downs, 2), atol=1e-12)


def test_the_local_enhancer_is_pix2pixhd():
    network = randomised(LocalEnhancer(4, 3, 2, 3, head=True))
    x = random(1, 3, 64, 128)
    assert torch.allclose(network([x])[0], local_enhancer(network, x, 3, 2, 3), atol=1e-12)


def test_trained_alone_the_coarse_part_is_the_global_generator():
    network = randomised(LocalEnhancer(4, 3, 2, 3, head=True))
    alone = GlobalGenerator(8, 3, 2).double()
    alone.body.load_state_dict(network.coarse.state_dict())
    alone.head.load_state_dict(network.coarse_head.state_dict())
    network.coarse_only = True
    x = random(1, 3, 32, 64)
    assert torch.equal(network([x])[0], alone([x])[0])


def test_discriminator_scales_see_pooled_images():
    network = randomised(PooledDiscriminators([PatchGAN(6, 4, norm="instance", padding=2) for _ in range(3)]))
    source, image = random(1, 3, 64, 64), random(1, 3, 64, 64)
    x = torch.cat((source, image), 1)
    for scale, ours in zip(network.scales, network([source], [image]), strict=True):
        assert torch.allclose(ours[-1], patchgan(scale, x, 3, "instance", 2)[-1], atol=1e-12)
        x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
    network.first = 1
    outputs = network([pooled_half(source)], [pooled_half(image)])
    x = pooled_half(torch.cat((source, image), 1))
    assert len(outputs) == 2
    assert torch.allclose(outputs[0][-1], network.scales[1](x)[-1])
    assert torch.allclose(outputs[1][-1], network.scales[2](pooled_half(x))[-1])
