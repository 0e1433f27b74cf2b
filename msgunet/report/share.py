"""`msgunet share`: what of a suite's results may be passed on, small enough to be committed."""

import re
import shutil
from pathlib import Path

import pandas as pd

from msgunet import registry
from msgunet.errors import UserError
from msgunet.files import atomic, write_text
from msgunet.report.collect import Collection
from msgunet.suite import Plan
from msgunet.suite_file import suite_path

_MARK = "Written by `msgunet share"


def share(plan: Plan, suite: str, out: Path | None, command: str) -> Path:
    """Copy tables, figures, numbers and the suite itself into a folder; pictures only of data sets that allow it.

    Args:
        plan: of the suite.
        suite: its name or path, as it was given.
        out: the folder; None: `results/gpu/DEVICE/SUITE`, on a CPU `results/cpu/DEVICE/SUITE`.
        command: that makes it.

    Returns the folder.

    Raises:
        UserError: there is nothing to share yet; what there is was measured on several devices, and `out` is None; or
            `out` holds something else.

    """
    collection = Collection(plan.results / "settings" / "report.json", plan.results)
    speed = plan.results / "speed.csv"
    found = [plan.results / name for name in ("tables", "figures") if (plan.results / name).is_dir()]
    if not found and not speed.is_file():
        raise UserError(f"there are no results in {plan.results} yet; run {collection.settings['command']}")
    out = out or _place(plan, collection)
    if out.is_dir() and any(out.iterdir()):
        # Nothing of an earlier state of the suite may stay; nor may anything of somebody else's go.
        if not (out / "README.md").is_file() or _MARK not in (out / "README.md").read_text(encoding="utf-8"):
            raise UserError(f"{out} holds something that is not from 'msgunet share'; give another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    kept = _kept_back(plan)
    for folder in found:
        hidden = shutil.ignore_patterns(*(f"pictures_{dataset}.*" for dataset in kept))
        shutil.copytree(folder, out / folder.name, ignore=hidden)
    for path in plan.results.glob("speed.*"):
        shutil.copy(path, out)
    shutil.copy(suite_path(suite), out / "suite.yaml")
    for name, frame in {"metrics": _metrics(collection), "gradients": _gradient_rows(collection)}.items():
        if frame is not None:
            with atomic(out / f"{name}.csv") as temporary:
                frame.to_csv(temporary, index=False, lineterminator="\n", float_format="%.6g")
    write_text(out / "README.md", _about(plan, collection, out, kept, command))
    return out


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
    """Data sets whose pictures may not be passed on."""
    return [data.name for data in plan.data if not registry.datasets()[data.kind].shareable]


def _metrics(collection: Collection) -> pd.DataFrame | None:
    """One row per picture, run and protocol."""
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
    made = collection.settings["command"]
    lines = [
        f"# Results of the suite '{plan.name}'",
        "",
        plan.suite.description,
        "",
        f"- {_MARK}{command.removeprefix('msgunet share')}` from what `{made}` had made.",
        "- `suite.yaml` is the suite; `tables/*.csv` hold all numbers of the tables, `metrics.csv` one row per test "
        "picture.",
        *(f"- {collection.data_conditions(dataset)}" for dataset in plan.suite.datasets if collection.runs),
        *(f"- {run}" for run in [collection.environment()] if run),
        *(f"- {sentence}" for dataset in collection.datasets for sentence in collection.unfinished(dataset)),
    ]
    if kept:
        lines.append(f"- No pictures of {', '.join(kept)}, which may not be passed on.")
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.md"))
    lines += ["", *(f"- [{file}]({file})" for file in files)]
    lines += [f"- ![{path.stem}]({path.relative_to(out).as_posix()})" for path in sorted(out.rglob("*.png"))]
    return "\n".join(lines) + "\n"
