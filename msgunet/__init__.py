"""MSG U-Net and the benchmark for high-resolution paired image-to-image translation around it.

What `__init__.pyi` lists is for users and for authors of methods and data sets; each name is imported when it is first
used, so that `import msgunet` loads no torch. Everything else may move between versions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
