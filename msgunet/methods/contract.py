"""What the project expects of a method's code, checked where the code returns: networks, lists of images, terms.

A violation is a `MethodBug` that names the function at fault. Without these checks, it would only be noticed later, in
code that is not the author's.
"""

from typing import Any, Literal

from torch import Tensor, nn

from msgunet.core.bugs import contract_bug
from msgunet.methods.method import Method


def built(method: Method, name: Literal["build_generator", "build_training_generator", "build_discriminator"]) -> Any:
    """Return the network that this function of a method builds.

    Raises:
        MethodBug: it is no network.

    """
    if name == "build_discriminator" and not method.has_discriminator(method.options):
        return NoDiscriminator(method)
    network = getattr(method, name)()
    if not isinstance(network, nn.Module):
        raise contract_bug(
            method, [getattr(type(method), name)], f"{name} returned {_kind(network)}; expected a network (nn.Module)"
        )
    return network


class NoDiscriminator(nn.Module):
    """Takes the place of the discriminator in methods without one; it has no weights."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self._method = method

    def forward(self, *_: Any) -> None:
        """Raise MethodBug: there is nothing to call."""
        text = "generator_losses calls the discriminator, but the method does not define build_discriminator"
        raise contract_bug(self._method, [type(self._method).generator_losses], text)


def checked_outputs(method: Method, generator: nn.Module, outputs: Any) -> list[Tensor]:
    """Return a generator's outputs.

    Raises:
        MethodBug: they are no list of tensors (N, C, H, W).

    """
    expected = "expected a list with one tensor (N, C, H, W) per scale, full size first"
    places = [type(generator).forward, type(method).build_generator]
    if not isinstance(outputs, list | tuple) or not outputs:
        raise contract_bug(method, places, f"forward returned {_kind(outputs)}; {expected}")
    for i, output in enumerate(outputs):
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise contract_bug(method, places, f"forward returned {_kind(output)} at scale {i}; {expected}")
    return outputs


def checked_scores(method: Method, discriminator: nn.Module, result: Any) -> list[list[Tensor]]:
    """Return what a discriminator returns when both losses share it (`generator_first`).

    Raises:
        MethodBug: it is no list of lists.

    """
    if not isinstance(result, list | tuple) or not all(isinstance(scale, list | tuple) for scale in result):
        kind = _kind(result) if not isinstance(result, list | tuple) else f"a list of {_kind(result[0])}"
        raise contract_bug(
            method,
            [type(discriminator).forward, type(method).build_discriminator],
            f"the discriminator's forward returned {kind}; with generator_first, expected a list with the list of the "
            "layers' outputs for each scale",
        )
    return result


def checked_terms(
    method: Method, name: Literal["generator_losses", "discriminator_losses"], terms: Any
) -> dict[str, Tensor]:
    """Return the terms of a loss.

    Raises:
        MethodBug: they are no dictionary of scalar tensors.

    """
    places = [getattr(type(method), name)]
    expected = "expected a dictionary of scalars, each a mean over images"
    if not isinstance(terms, dict) or not terms:
        raise contract_bug(method, places, f"{name} returned {_kind(terms)}; {expected}")
    for key, term in terms.items():
        if not isinstance(key, str):
            raise contract_bug(method, places, f"{name} returned a term called {key!r}; its name must be a text")
        if not isinstance(term, Tensor) or term.ndim:
            stay = "; a term must stay a tensor: leave out .item() and float()" if isinstance(term, float | int) else ""
            raise contract_bug(method, places, f"{name} returned {_kind(term)} as the term '{key}'; {expected}{stay}")
    return terms


def unconnected(method: Method, name: Literal["generator_losses", "discriminator_losses"]) -> Exception:
    """Return the error that no term of a loss depends on the weights that it should train."""
    network = name.removesuffix("_losses")
    text = (
        f"no term of {name} depends on the {network}'s weights, so nothing can be trained; look for detach or no_grad"
    )
    return contract_bug(method, [getattr(type(method), name)], text)


def _kind(value: Any) -> str:
    """Return what a value is, in words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None:
        return "nothing (is there a return?)"
    if isinstance(value, list | tuple | dict) and not value:
        return f"an empty {type(value).__name__}"
    return f"a value of type {type(value).__name__}"
