"""What cuDNN itself says of every fused layer on an H100, without a GPU.

cuDNN reports its kernels for a device that is only described, but not without the driver's library. So a child process
has one whose functions all fail.
"""

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from msgunet.data.pairs import blank_pyramid
from msgunet.methods.conv_act import layer_of
from msgunet.methods.inference import prepare
from msgunet.methods.registry import build_method
from msgunet.suite.networks import trained_networks
from msgunet.suite.plan import load_plan

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
    pytest.mark.skipif(importlib.util.find_spec("cudnn") is None, reason="needs the extra 'cuda'"),
]
H100 = {
    "maxGridSize": [2147483647, 65535, 65535],
    "maxBlockSize": [1024, 1024, 64],
    "regsPerBlock": 65536,
    "multiProcessorCount": 132,
    "warpSize": 32,
    "maxSharedMemoryPerBlock": 49152,
    "maxSharedMemoryPerBlockOptin": 232448,
    "reservedSharedMemoryPerBlock": 1024,
    "maxRegistersPerSM": 65536,
    "maxCtasPerSM": 32,
    "maxThreadsPerBlock": 1024,
    "maxThreadsPerSM": 2048,
    "pciDeviceId": 0,
    "isTccDriver": 0,
    "supportCoopLaunch": 1,
    "totalGlobalMem": 85017493504,
    "smClockRateKHz": 1980000,
    "memClockRateKHz": 2619000,
    "l2CacheSize": 52428800,
    "cudaDeviceId": 0,
    "deviceVer": 900,
    "driverVer": 13000,
    "deviceName": "NVIDIA H100 80GB HBM3",
}
CHILD = """
import json, sys
from msgunet.methods.cudnn_graphs import Layer, graph_of  # with torch, whose cuDNN the package finds
import cudnn
device = cudnn.create_device_properties(sys.argv[1])
for line in sys.stdin:
    layer = Layer(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(line).items()})
    try:
        print(graph_of(layer, device_property=device).get_execution_plan_count(), flush=True)
    except Exception as error:
        print("none:", str(error).splitlines()[0], flush=True)
"""


class Fused(TorchDispatchMode):
    """A context that collects the fused layers that run inside it."""

    def __init__(self):
        super().__init__()
        self.layers = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.msgunet.conv_act.default:
            self.layers.append(layer_of(*args))
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    """Return a function that asks cuDNN how many plans it has for each layer."""
    import nvidia.cudnn

    folder = tmp_path_factory.mktemp("driver")
    used = set()
    for file in Path(next(iter(nvidia.cudnn.__path__)), "lib").glob("*.so*"):
        used |= set(re.findall(rb"(?<=\x00)cu[A-Z][A-Za-z0-9_]{3,60}(?=\x00)", file.read_bytes()))
    names = {name.decode() for name in used} | {"cuGetProcAddress", "cuGetProcAddress_v2", "cuLaunchKernelEx"}
    names |= {"cuTensorMapEncodeTiled", "cuTensorMapEncodeIm2col"}
    code = "int cuInit(unsigned f) { return 0; }\nint cuDriverGetVersion(int *v) { *v = 13000; return 0; }\n"
    code += "".join(f"int {name}(void) {{ return 100; }}\n" for name in names - {"cuInit", "cuDriverGetVersion"})
    compiler = ["gcc", "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", folder / "libcuda.so.1"]
    subprocess.run(compiler, input=code.encode(), check=True)
    environment = os.environ | {"LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}

    def ask(layers):
        lines = "".join(json.dumps(dataclasses.asdict(layer)) + "\n" for layer in layers)
        command = [sys.executable, "-c", CHILD, json.dumps(H100)]
        child = subprocess.run(command, input=lines, env=environment, capture_output=True, text=True)
        assert child.returncode == 0, child.stderr
        return dict(zip(layers, child.stdout.splitlines(), strict=True))

    return ask


def fused_layers():
    """Return the different fused layers of every method in the suite `speed`, at every size."""
    found = {}
    for run in trained_networks(load_plan("speed"), None, None):
        method = build_method(run)
        with torch.device("meta"), torch.no_grad():
            network = prepare(method, method.build_generator(), torch.device("meta"), "bf16")
            scales = method.scales(method.options, run.size)
            sources = [s.bfloat16() for s in blank_pyramid(scales, run.size, channels=method.channels[0])]
            with Fused() as fused:
                network(sources)
        assert fused.layers, run.entry
        found |= dict.fromkeys(fused.layers)
    return list(found)


def test_cudnn_has_a_kernel_for_every_fused_layer(answer):
    layers = fused_layers()
    assert len(layers) > 60
    assert [(layer, plans) for layer, plans in answer(layers).items() if not plans.isdigit() or plans == "0"] == []


def test_cudnn_refuses_what_it_cannot_run(answer):
    """So that the test above can fail."""
    layer = dataclasses.replace(fused_layers()[0], x=(1, 3, 64, 64))
    assert answer([layer])[layer].startswith("none:")
