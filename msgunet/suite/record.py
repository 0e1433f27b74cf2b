"""Shared results: the record in their folder, by which another checkout can verify them."""

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from msgunet.core.errors import UserError
from msgunet.core.files import sha256_file
from msgunet.core.settings import Strict

RECORD = "runs.json"


def manifest_name(dataset: str) -> str:
    """Return the path of a data set's manifest in a folder of shared results; earlier versions shared none."""
    return f"manifests/{dataset}.csv"


class SharedRun(Strict):
    """An evaluated run: its settings, and what its training and evaluation recorded, with the checksums."""

    settings: dict[str, Any]
    training: dict[str, Any]
    evaluation: dict[str, Any]

    @property
    def key(self) -> tuple[str, str, int]:
        """Data set, entry and seed."""
        return self.settings["dataset"], self.settings["entry"], self.settings["seed"]

    @property
    def weights(self) -> str:
        """The file of its generator, if generators are shared."""
        return "weights/{}.{}.seed{}.safetensors".format(*self.key)


class SharedResults(Strict):
    """The record of a folder of shared results.

    Attributes:
        suite: name of the suite; its file is `<suite>.yaml`.
        files: the SHA-256 of every other file in the folder.
        methods: for each own method's file that the suite names, its copy in the folder.
        runs: the evaluated runs.

    """

    format: Literal[1] = 1
    suite: str
    files: dict[str, str]
    methods: dict[str, str]
    runs: tuple[SharedRun, ...]

    def changed(self, folder: Path) -> list[str]:
        """Return the files in `folder` that are missing or differ from their checksums."""
        return [
            f"{folder / name} {'was changed after it was shared' if (folder / name).is_file() else 'is missing'}"
            for name, checksum in self.files.items()
            if not (folder / name).is_file() or sha256_file(folder / name) != checksum
        ]


def copies_for(suite: Path) -> list[str]:
    """Return what to copy for a suite in a folder of shared results: the files of its methods that do not exist here.

    Empty if the suite is in no such folder, or its record is not readable.
    """
    try:
        methods = read_shared(suite.parent).methods
    except UserError:
        return []
    return [
        f"the shared method: cp {suite.parent / copy} {file}"
        for file, copy in methods.items()
        if not Path(file).exists()
    ]


def read_shared(folder: Path) -> SharedResults:
    """Read the record of a folder of shared results.

    Raises:
        UserError: there is none, or it is damaged.

    """
    path = folder / RECORD
    if not path.is_file():
        raise UserError(
            f"there is no {path}; give the name of a suite, or a folder that 'msgunet share' wrote (earlier versions "
            "wrote no such file)"
        )
    try:
        return SharedResults.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path} is not a readable record of shared results: {error.errors()[0]['msg']}") from error
