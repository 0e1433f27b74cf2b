"""Errors in the code of custom methods: which errors they are, and one line that says where and what is wrong."""

import builtins
import contextlib
import inspect
import linecache
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import Any

from msgunet.core.disk import disk_error
from msgunet.core.errors import InterruptedTraining, UserError, is_out_of_memory

# The names of the methods in each source file of custom methods that this process has executed.
_METHODS: dict[str, tuple[str, ...]] = {}

# Where torch calls a layer, or the layers of a sequence.
_CALLS = ("/torch/nn/modules/module.py", "/torch/nn/modules/container.py")

_LISTS = (
    "sources, targets and outputs are lists with one tensor per scale, full size first: take sources[0], and so on; "
    "what PatchGAN returns is, for each scale, the list of its layers' outputs"
)

_READ = (
    "the value of a tensor is read here, but networks and losses must stay tensors: leave out .item(), float(), int(), "
    "bool(), tolist(), numpy(), cpu(), and 'if' on a tensor (on a GPU, each would also make it wait)"
)

# What torch and Python say about common mistakes, and the same in words. `{layer}` is the layer that complained.
_WORDS = (
    (
        r"expected input(?P<shape>\[[\d, ]+\]) to have (?P<has>\d+) channels, but got (?P<got>\d+) channels",
        "layers do not fit: {layer} takes {has} channels, but its input has {got} (shape {shape})",
    ),
    (
        r"(?:running_mean|weight) should contain (?P<got>\d+) elements not (?P<has>\d+)|"
        r"match num_features \((?P<has2>\d+)\), but got: (?P<got2>\d+)",
        "layers do not fit: {layer} takes {has} channels, but its input has {got}",
    ),
    (
        r"weight of shape \[(?P<has>\d+)\] and input of shape (?P<shape>\[\d+, (?P<got>\d+)[\d, ]*\])",
        "layers do not fit: {layer} takes {has} channels, but its input has {got} (shape {shape})",
    ),
    (
        r"shapes cannot be multiplied \((?P<shape>\d+x(?P<got>\d+)) and (?P<has>\d+)x\d+\)",
        "layers do not fit: {layer} takes {has} values, but its input has {got} (shape {shape})",
    ),
    (
        r"size of tensor a \((?P<a>\d+)\) must match .* tensor b \((?P<b>\d+)\) .* dimension (?P<dimension>\d+)",
        "shapes do not fit: one tensor has {a}, the other {b} in dimension {dimension} of (N, C, H, W)",
    ),
    (
        r"had torch\.Size\((?P<b>\[[\d, ]+\])\); but expected shape should be broadcastable to (?P<a>\[[\d, ]+\])",
        "shapes do not fit: one tensor has shape {a}, the other {b}",
    ),
    (
        r"Sizes of tensors must match except .*\. Expected (?:size )?(?P<a>\d+).* but got (?:size )?(?P<b>\d+)",
        "shapes do not fit: torch.cat of tensors whose other sides differ, {a} and {b}",
    ),
    (
        r"'(?:list|tuple)' object has no attribute|must be Tensor, not (?:list|tuple)|"
        r"got \((?:list|tuple),.*\(Tensor input|but got (?:list|tuple)$|unsupported operand .*'(?:list|tuple)'",
        "a list where a tensor is expected; " + _LISTS,
    ),
    (
        r"'Tensor' object has no attribute '(?:append|extend|pop|index|insert)'|"
        r"must be tuple of Tensors, not Tensor|got \(Tensor.*\(tuple of Tensors",
        "a tensor where a list is expected; " + _LISTS,
    ),
    (
        # A step is first tried on tensors of the device "meta", which have shapes but no values.
        r"item\(\) cannot be called on meta tensors|Cannot copy out of meta tensor|can't convert meta device type|"
        r"register_meta function for|attempted to run this operator with Meta tensors",
        _READ,
    ),
)


class MethodBug(UserError):  # noqa: N818 (the usual name)
    """An error in the code of a custom method.

    Attributes:
        place: the file and line, as `file.py:17`.
        text: what is wrong.

    """

    def __init__(self, method: str, place: str, text: str, trace: str = "") -> None:
        """`trace`: the traceback from the method's code on, for its author."""
        self.method, self.place, self.text = method, place, " ".join(text.split())
        super().__init__(f"{method} ({place}): {self.text}" if method else f"{place}: {self.text}", trace=trace)

    def __reduce__(self) -> tuple[Any, ...]:
        return MethodBug, (self.method, self.place, self.text, self.trace)

    def of(self, method: str) -> "MethodBug":
        """Return the same error under the name of a method."""
        return MethodBug(method, self.place, self.text, self.trace)


def add_sources(files: Iterable[Path], methods: Iterable[str]) -> None:
    """Say that these files are the code of these custom methods."""
    _METHODS.update(dict.fromkeys(map(str, files), tuple(methods)))


@contextlib.contextmanager
def bugs_named() -> Iterator[None]:
    """Turn an error in the code of a custom method into a `MethodBug`; other errors pass."""
    try:
        yield
    except Exception as error:
        if (bug := bug_in(error)) is None:
            raise
        raise bug from error


def bug_in(error: BaseException) -> MethodBug | None:
    """Return an error as one of a custom method's code; None if no line of that code was being executed.

    Errors that name their remedy already, and those of the machine, such as too little memory, are nobody's bug.
    """
    known = isinstance(error, UserError | InterruptedTraining | BrokenPipeError)
    if known or not isinstance(error, Exception) or disk_error(error) or is_out_of_memory(error):
        return None
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [i for i, (frame, _) in enumerate(frames) if frame.f_code.co_filename in _METHODS]
    if not own:
        return None
    frame, line = frames[own[-1]]
    layer = _layer(frame for frame, _ in frames[own[-1] + 1 :])
    place = f"{_shown(frame.f_code.co_filename)}:{line}"
    text = in_words(error, layer)
    # Below the line that reads a value, there is only torch.
    trace = "" if text == _READ else trace_of(error, _METHODS)
    if text == _READ and (source := linecache.getline(frame.f_code.co_filename, line).strip()):
        text = f"{text}: {source}"
    return MethodBug(_method([f for f, _ in frames]), place, text, trace)


def contract_bug(method: Any, functions: Iterable[Callable[..., Any]], text: str) -> MethodBug:
    """Return that a method's code does not do what its callers expect; `method` can also be its class.

    `functions` are those that can be at fault; the place is that of the first one which is the method's own code.
    """
    codes = [getattr(inspect.unwrap(function), "__code__", None) for function in functions]
    own = [(code.co_filename, code.co_firstlineno) for code in codes if code and code.co_filename in _METHODS]
    file, line = own[0] if own else (inspect.getfile(method if isinstance(method, type) else type(method)), 1)
    return MethodBug(method.name, f"{_shown(file)}:{line}", text)


def load_bug(error: BaseException, path: Path, sources: Iterable[Path], hint: str = "") -> MethodBug:
    """Return an error while a method's file was loaded; the names of its methods are unknown then.

    Args:
        error: the error.
        path: the file that was loaded.
        sources: the file and the modules next to it that it imports.
        hint: what to do, added to the message.

    """
    files = {*map(str, sources)}
    places = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    text = str(error)
    if isinstance(error, SyntaxError) and error.filename in files:
        places, text = [(error.filename, error.lineno or 1)], error.msg
    file, line = places[-1] if places else (str(path), 1)
    text = f"{type(error).__name__}: {text}{nearest(error)}{hint}"
    return MethodBug("", f"{_shown(file)}:{line}", text, trace_of(error, files))


def in_words(error: BaseException, layer: str = "the layer") -> str:
    """Return what is wrong: in words for common mistakes, otherwise the exception's type and message."""
    message = str(error)
    for pattern, words in _WORDS:
        if match := re.search(pattern, message, re.DOTALL):
            found = {name.rstrip("2"): value for name, value in match.groupdict().items() if value is not None}
            return words.format(layer=layer, **found)
    return f"{type(error).__name__}: {message}{nearest(error)}" if message else type(error).__name__


def nearest(error: BaseException) -> str:
    """Return '; did you mean ...?' for a misspelt attribute, option, variable or import, if there is a near name."""
    known: list[str] = []
    name = getattr(error, "name", None)
    with contextlib.suppress(Exception):
        if isinstance(error, AttributeError) and not getattr(type(error.obj), "model_fields", True):
            return "; the class names no options: write 'Options = ...' in it (docs/own-method.md)"
        if isinstance(error, AttributeError):
            # Options have many inherited attributes that nobody means.
            known = list(getattr(type(error.obj), "model_fields", None) or dir(error.obj))
        elif isinstance(error, NameError):
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            known = [*frame.f_locals, *frame.f_globals, *dir(builtins)]
        elif isinstance(error, ImportError) and (match := re.match(r"cannot import name '(\w+)'", str(error))):
            name, known = match[1], dir(sys.modules[str(error.name)])
    close = get_close_matches(name, known, 1) if isinstance(name, str) else []
    return f"; did you mean '{close[0]}'?" if close else ""


def trace_of(error: BaseException, files: Iterable[str]) -> str:
    """Return the traceback of an error from the first line of these files on, without torch's calls of layers."""
    trace, files = error.__traceback__, set(files)
    while trace is not None and trace.tb_frame.f_code.co_filename not in files:
        trace = trace.tb_next
    text = traceback.TracebackException(type(error), error, trace)
    text.stack = traceback.StackSummary.from_list([f for f in text.stack if not f.filename.endswith(_CALLS)])
    return "".join(text.format()).rstrip()


def _method(frames: list[FrameType]) -> str:
    """Return the name of the method that was running: a file can register several."""
    names = next(_METHODS[f.f_code.co_filename] for f in reversed(frames) if f.f_code.co_filename in _METHODS)
    for frame in reversed(frames):
        for local in ("self", "cls", "method"):
            name = getattr(frame.f_locals.get(local), "name", None)
            if isinstance(name, str) and name in names:
                return name
    return ", ".join(names)


def _layer(frames: Iterable[FrameType]) -> str:
    """Return the innermost of torch's layers that was running."""
    layers = [frame.f_locals.get("self") for frame in frames if "/torch/nn/modules/" in frame.f_code.co_filename]
    return " ".join(repr(layers[-1]).split()) if layers and layers[-1] is not None else "the layer"


def _shown(file: str) -> str:
    """Return a path as a user would write it: relative to the working folder if it is in there."""
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative
