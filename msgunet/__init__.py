"""MSG U-Net and the benchmark for high-resolution paired image-to-image translation around it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msgunet.translate import Model, load

__all__ = ["Model", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # What needs torch is imported when it is asked for, so that the rest stays fast.
    if name in __all__:
        from msgunet import translate

        return getattr(translate, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
