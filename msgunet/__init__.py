"""MSG U-Net, and the benchmark for high-resolution paired image-to-image translation built around it.

The names listed in `__init__.pyi` are the public API, for users and for authors of methods and data sets. Each is
imported on first use, so `import msgunet` does not load torch. Everything else can change between versions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
