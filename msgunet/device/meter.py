"""Count what a network or a training step requires: memory, operations and bytes moved."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# They allocate memory, but no kernel runs.
_ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
_DTYPES = {torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass
class Operation:
    """An operation of a pass or step.

    Attributes:
        each: for each call the FLOP of convolutions and matrix products, 2 for each multiply-accumulate, and the bytes
            read and written, each tensor once.

    """

    each: list[tuple[int, int]] = field(default_factory=list)

    @property
    def flop(self) -> int:
        """The FLOP of all calls."""
        return sum(flop for flop, _ in self.each)

    @property
    def bytes(self) -> int:
        """The bytes of all calls."""
        return sum(moved for _, moved in self.each)


class Meter(TorchDispatchMode):
    """A context that counts the memory and operations of the code inside it.

    Attributes:
        bytes: the size of all live tensors, without the memory that libraries allocate for themselves.
        peak: the largest value that `bytes` has had.
        flop: the FLOP of convolutions and matrix products, 2 for each multiply-accumulate.
        moved: the bytes that convolutions and matrix products read and write if each tensor is transferred once.
        operations: what each operation adds up to, by its name in PyTorch and the precision of its result. Views and
            allocations are none. The bias of a convolution is an operation of its own, as on CUDA, where cuDNN's
            convolutions have none: `bias` reads and writes the output, and `bias gradient` sums the output's gradient.

    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = self.flop = self.moved = 0
        self.operations: dict[tuple[str, str], Operation] = {}
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function.overloadpacket)
        flop = 0 if count is None else count(*args, **(kwargs or {}), out_val=result)
        if count is not None:
            self.flop += flop
            self.moved += sum(t.nbytes for t in tensors_in((args, result)))
        self._operation(function, args, kwargs or {}, result, flop)
        for tensor in tensors_in(result):
            self._hold(tensor.untyped_storage())
        return result

    def _operation(self, function: Any, args: Any, kwargs: Any, result: Any, flop: int) -> None:
        name = function.overloadpacket.__name__
        read = {id(t): t for t in tensors_in((args, kwargs))}
        storages = {t.untyped_storage()._cdata for t in read.values()}
        new = [t for t in tensors_in(result) if t.untyped_storage()._cdata not in storages]
        if name in _ALLOCATIONS or not (new or function._schema.is_mutable):
            return
        written = {id(t): t for t in (*new, *_changed(function, args, kwargs))}
        precision = next((_DTYPES[t.dtype] for t in written.values() if t.dtype in _DTYPES), "")
        self._add(name, precision, flop, sum(t.nbytes for t in (*read.values(), *written.values())))
        if name == "convolution" and args[2] is not None:
            self._add("bias", precision, 0, 2 * result.nbytes + args[2].nbytes)
        elif name == "convolution_backward" and args[-1][2]:
            self._add("bias gradient", precision, 0, args[0].nbytes + result[2].nbytes)

    def _add(self, name: str, precision: str, flop: int, moved: int) -> None:
        self.operations.setdefault((name, precision), Operation()).each.append((flop, moved))

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)

        def release() -> None:
            self._known.discard(key)
            self.bytes -= size

        weakref.finalize(storage, release)


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Return the tensors in nested lists, tuples and dictionaries."""
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _changed(function: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """Yield the tensors that an operation changes in place."""
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tensors_in(kwargs.get(argument.name, args[place] if place < len(args) else None))
