"""`msgunet share`: what of a suite's results may be passed on, small enough to be committed."""

import re
import shutil
import tempfile
from pathlib import Path

import pandas as pd

from msgunet.core.errors import UserError
from msgunet.core.files import write_text
from msgunet.core.provenance import device_of
from msgunet.data.registry import datasets
from msgunet.report.collect import Collection
from msgunet.suite.file import suite_path
from msgunet.suite.plan import Plan

_FOLDERS = ("tables", "figures")
# All that a folder of shared results holds, beside these.
_FILES = re.compile(r"README\.md|suite\.yaml|metrics\.csv|gradients\.csv|speed\.\w+")


def share(plan: Plan, suite: str, out: Path | None, command: str) -> Path:
    """Copy tables, figures, numbers and the suite itself into a folder; images only of data sets that allow it.

    Args:
        plan: of the suite.
        suite: its name or path, as it was given.
        out: the folder; None: `results/gpu/DEVICE/SUITE`, on a CPU `results/cpu/DEVICE/SUITE`.
        command: that makes it.

    Returns the folder; what an earlier call has written there is replaced.

    Raises:
        UserError: there is nothing to share yet; what there is was measured on several devices, and `out` is None; or
            `out` holds something else, or is within the results.

    """
    if not any((plan.results / name).exists() for name in (*_FOLDERS, "speed.csv")):
        raise UserError(f"there are no results in {plan.results} yet; run snakemake --cores all --config suite={suite}")
    collection = Collection(plan.results / "settings" / "report.json", plan.results)
    out = out or _place(plan, collection)
    _refuse_strangers(out, plan.results)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as work:
        made = Path(work)
        _write(plan, collection, suite, made, command)
        out.mkdir(exist_ok=True)
        for old in out.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        for new in made.iterdir():
            new.rename(out / new.name)
    return out


def _refuse_strangers(out: Path, results: Path) -> None:
    """Nothing goes that was not shared before."""
    if out.resolve().is_relative_to(results.resolve()) or results.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out} and {results} hold each other; give another --out")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is no folder; give another --out")
    there = out.iterdir() if out.is_dir() else ()
    if others := sorted(p.name for p in there if not (p.name in _FOLDERS and p.is_dir()) and not _ours(p)):
        raise UserError(f"{out} holds what 'msgunet share' has not written ({others[0]}); give another --out")


def _ours(path: Path) -> bool:
    return path.is_file() and _FILES.fullmatch(path.name) is not None


def _write(plan: Plan, collection: Collection, suite: str, out: Path, command: str) -> None:
    kept = _kept_back(plan)
    hidden = shutil.ignore_patterns(*(f"images_{dataset}.*" for dataset in kept))
    for name in _FOLDERS:
        if (plan.results / name).is_dir():
            shutil.copytree(plan.results / name, out / name, ignore=hidden)
    for path in plan.results.glob("speed.*"):
        shutil.copy(path, out)
    shutil.copy(suite_path(suite), out / "suite.yaml")
    for name, frame in {"metrics": _metrics(collection), "gradients": _gradient_rows(collection)}.items():
        if frame is not None:
            frame.to_csv(out / f"{name}.csv", index=False, lineterminator="\n", float_format="%.6g")
    write_text(out / "README.md", _about(plan, collection, out, kept, command))


def _place(plan: Plan, collection: Collection) -> Path:
    """Named by the device that everything was measured on."""
    frames = [frame for frame in (collection.cost(), collection.speed()) if frame is not None and "device" in frame]
    found = {(row.device, row.device_type) for frame in frames for row in frame.itertuples()}
    facts = [run.facts() for run in (*collection.runs, *collection.gradients) if run.trainable and run.facts()]
    found |= {(fact["device"], fact["device_type"]) for fact in facts}
    if len(found) != 1:
        names = ", ".join(sorted(name for name, _ in found)) or "no device"
        raise UserError(f"the results of '{plan.name}' are of {names}; give a folder for them: --out FOLDER")
    ((name, kind),) = found
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return Path("results") / ("gpu" if kind == "cuda" else "cpu") / slug / plan.name


def _kept_back(plan: Plan) -> list[str]:
    """Data sets whose images may not be passed on, or are a user's own."""
    own = "folder"
    return [data.name for data in plan.data if data.kind == own or not datasets()[data.kind].shareable]


def _metrics(collection: Collection) -> pd.DataFrame | None:
    """One row per image, run and protocol."""
    frames = []
    for run in collection.runs:
        frame = run.measured()
        if frame is not None:
            settings = run.settings
            frame.insert(0, "seed", settings.seed)
            frame.insert(0, "entry", settings.entry)
            frame.insert(0, "dataset", settings.dataset)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else None


def _gradient_rows(collection: Collection) -> pd.DataFrame | None:
    """What was recorded with and without intermediate outputs."""
    frames = {run.folder.name: run.table("gradients.csv") for run in collection.gradients}
    there = [frame.assign(variant=variant) for variant, frame in frames.items() if frame is not None]
    return pd.concat(there, ignore_index=True) if there else None


def _about(plan: Plan, collection: Collection, out: Path, kept: list[str], command: str) -> str:
    """What is in the folder, and under which conditions it was measured."""
    there = {
        "tables": "`tables/*.csv`: the numbers of the tables",
        "metrics.csv": "`metrics.csv`: one row per test image, run and protocol",
        "gradients.csv": "`gradients.csv`: what was recorded with and without intermediate outputs",
        "speed.csv": "`speed.csv`: what `msgunet bench` has measured",
    }
    lines = [f"# Results of the suite '{plan.name}'", "", plan.suite.description, ""]
    lines += [f"- written by `{command}`; `suite.yaml` is the suite"]
    lines += [f"- {text}" for name, text in there.items() if (out / name).exists()]
    speed = collection.speed()
    lines += [] if speed is None else [f"- timed on {device_of(speed)}, commit {speed['commit'].iloc[0]}"]
    if (out / "tables").exists():
        lines += [f"- {collection.data_conditions(dataset)}" for dataset in plan.suite.datasets]
        lines += [f"- {collection.environment()}"]
        lines += [f"- {sentence}" for dataset in collection.datasets for sentence in collection.unfinished(dataset)]
    if kept and (out / "figures").exists():
        lines.append(f"- no images of {', '.join(kept)}")
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.md"))
    lines += ["", *(f"- [{file}]({file})" for file in files)]
    lines += [f"- ![{path.stem}]({path.relative_to(out).as_posix()})" for path in sorted(out.rglob("*.png"))]
    return "\n".join(lines) + "\n"
