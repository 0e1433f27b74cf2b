# The public names, and where they are defined.
from .core.errors import UserError
from .core.registry import lazy_import
from .core.settings import ImageFormat, TrainingSettings
from .core.version import __version__
from .data.base import DataSet, DataSetOptions, RawPair, Remote
from .data.images import read, save
from .data.registry import register_dataset
from .device.precision import upcast
from .methods.losses import cross_entropy, eager_gradient, l1_per_image, l1_sum, least_squares
from .methods.method import Method, MethodOptions, Phase
from .methods.networks import MSGUNet, PatchGAN, PooledDiscriminators, ScaleDiscriminators, init_normal, scaled
from .methods.norms import InstanceNorm, use_batch_statistics
from .methods.recompute import Stages, recomputed
from .methods.registry import register_method
from .translation.translate import Model, load

__all__ = [
    "DataSet",
    "DataSetOptions",
    "ImageFormat",
    "InstanceNorm",
    "MSGUNet",
    "Method",
    "MethodOptions",
    "Model",
    "PatchGAN",
    "Phase",
    "PooledDiscriminators",
    "RawPair",
    "Remote",
    "ScaleDiscriminators",
    "Stages",
    "TrainingSettings",
    "UserError",
    "__version__",
    "cross_entropy",
    "eager_gradient",
    "init_normal",
    "l1_per_image",
    "l1_sum",
    "lazy_import",
    "least_squares",
    "load",
    "read",
    "recomputed",
    "register_dataset",
    "register_method",
    "save",
    "scaled",
    "upcast",
    "use_batch_statistics",
]
