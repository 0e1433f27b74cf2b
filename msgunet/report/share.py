"""`msgunet share`: the redistributable results of a suite, in a folder small enough to commit."""

import re
import shutil
from pathlib import Path

import pandas as pd

from msgunet.core.errors import UserError
from msgunet.core.files import sha256_file, work_folder, write_json, write_text
from msgunet.core.provenance import device_of
from msgunet.core.text import markdown, markdown_code
from msgunet.data.registry import datasets
from msgunet.methods.method_file import source_files
from msgunet.report.collect import Collection, Run
from msgunet.report.files import figure_names
from msgunet.suite.file import suite_path
from msgunet.suite.plan import Plan
from msgunet.suite.record import RECORD, SharedResults, SharedRun, manifest_name

_USERS_OWN = "folder"
_FOLDERS = ("tables", "figures")
# Further folders of shared results, which a suite's own results do not have.
_ADDED = ("methods", "weights", "manifests")
# All other files in a folder of shared results, besides the suite's; earlier versions called that one suite.yaml.
_FILES = re.compile(r"README\.md|suite\.yaml|runs\.json|metrics\.csv|gradients\.csv|speed\.\w+")


def share(plan: Plan, suite: str, out: Path | None, command: str, weights: bool = False) -> Path:
    """Copy tables, figures, numbers and the suite file into a folder; images only if their data set allows it.

    With them go the files of own methods and `runs.json`, by which `msgunet verify FOLDER` verifies the results.

    Args:
        plan: the plan of the suite.
        suite: the suite's name or path, as given by the user.
        out: the folder; None means `results/gpu/DEVICE/SUITE`, or `results/cpu/DEVICE/SUITE` on a CPU.
        command: the command that creates the folder.
        weights: copy the generators, too.

    Returns:
        The folder. Files written there by an earlier call are replaced.

    Raises:
        UserError: there are no results yet; `out` is None and the results come from several devices; or `out` contains
            other files, or overlaps with the results.

    """
    if not any((plan.results / name).exists() for name in (*_FOLDERS, "speed.csv")):
        raise UserError(f"there are no results in {plan.results} yet; run snakemake --cores all --config suite={suite}")
    collection = Collection(plan.results / "settings" / "report.json", plan.results)
    out = out or _place(plan, collection)
    _refuse_foreign_files(out, plan)
    out.parent.mkdir(parents=True, exist_ok=True)
    with work_folder(out.parent / f".tmp-share-{out.name}", lock=plan.results / ".lock-share") as new_folder:
        _write(plan, collection, suite, new_folder, command, weights)
        out.mkdir(exist_ok=True)
        for old in out.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        for new in new_folder.iterdir():
            new.rename(out / new.name)
    return out


def _refuse_foreign_files(out: Path, plan: Plan) -> None:
    """Raise UserError if replacing `out` could delete anything that `msgunet share` did not write."""
    results = plan.results
    if out.resolve().is_relative_to(results.resolve()) or results.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out} and {results} overlap: one contains the other; give another --out")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is not a folder; give another --out")
    existing = out.iterdir() if out.is_dir() else ()
    if others := sorted(
        p.name for p in existing if not (p.name in (*_FOLDERS, *_ADDED) and p.is_dir()) and not _ours(p, plan)
    ):
        raise UserError(f"{out} contains {others[0]}, which 'msgunet share' did not write; give another --out")


def _ours(path: Path, plan: Plan) -> bool:
    return path.is_file() and (path.name == f"{plan.name}.yaml" or _FILES.fullmatch(path.name) is not None)


def _write(plan: Plan, collection: Collection, suite: str, out: Path, command: str, weights: bool) -> None:
    withheld = _withheld(plan)
    # Only the report's own files, since a folder can hold images that an earlier version wrote under another name.
    figures = {name for names in figure_names(plan.report).values() for name in names}
    known = {"figures": {*figures, "speed"} - {f"images_{dataset}" for dataset in withheld}}
    for name in _FOLDERS:
        for path in sorted((plan.results / name).glob("[!.]*")):
            if name not in known or path.stem in known[name] or path.suffix == ".json":
                (out / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, out / name)
    for path in plan.results.glob("speed.*"):
        shutil.copy(path, out)
    shutil.copy(suite_path(suite), out / f"{plan.name}.yaml")
    # Metrics in full precision: `msgunet verify` compares them to the last bit.
    for name, frame, digits in (
        ("metrics", _metrics(collection), None),
        ("gradients", _gradient_rows(collection), "%.6g"),
    ):
        if frame is not None:
            frame.to_csv(out / f"{name}.csv", index=False, lineterminator="\n", float_format=digits)
    for data in plan.data:
        # Not the images, but the hashes of their pixels: `msgunet verify` names those that differ.
        if (data.folder / "manifest.csv").is_file():
            (out / "manifests").mkdir(exist_ok=True)
            shutil.copy(data.folder / "manifest.csv", out / manifest_name(data.name))
    copies = _copy_methods(plan, out / "methods")
    evaluated = [run for run in collection.runs if run.evaluation_facts()]
    runs = tuple(map(_shared_run, evaluated))
    if weights:
        for run, shared in zip(evaluated, runs, strict=True):
            (out / shared.weights).parent.mkdir(exist_ok=True)
            shutil.copy(run.folder / "generator.safetensors", out / shared.weights)
    write_text(out / "README.md", _readme(plan, collection, out, withheld, command, copies))
    if runs:
        files = {
            path.relative_to(out).as_posix(): sha256_file(path) for path in sorted(out.rglob("*")) if path.is_file()
        }
        record = SharedResults(suite=plan.name, files=files, methods=copies, runs=runs)
        write_json(out / RECORD, record.model_dump(mode="json"))


def _copy_methods(plan: Plan, out: Path) -> dict[str, str]:
    """Copy the files of own methods with the modules that they import, and return the copy of each file."""
    copies = {}
    for number, file in enumerate(plan.method_files):
        # Files in different folders can have the same name.
        folder = out / str(number) if len(plan.method_files) > 1 else out
        sources = source_files(file)
        for source in sources:
            copy = folder / source.relative_to(sources[0].parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
        copies[file] = (folder / sources[0].name).relative_to(out.parent).as_posix()
    return copies


def _shared_run(run: Run) -> SharedRun:
    return SharedRun(
        settings=run.settings.model_dump(mode="json"), training=run.facts(), evaluation=run.evaluation_facts()
    )


def _place(plan: Plan, collection: Collection) -> Path:
    """Return the default folder, named after the device on which everything was measured."""
    frames = [frame for frame in (collection.cost(), collection.speed()) if frame is not None and "device" in frame]
    devices = {(row.device, row.device_type) for frame in frames for row in frame.itertuples()}
    facts = [run.facts() for run in (*collection.runs, *collection.gradients) if run.trainable and run.facts()]
    devices |= {(fact["device"], fact["device_type"]) for fact in facts}
    if len(devices) != 1:
        names = ", ".join(sorted(name for name, _ in devices)) or "none recorded"
        raise UserError(
            f"the results of '{plan.name}' were not measured on exactly one device ({names}); choose the folder with "
            "--out FOLDER"
        )
    ((name, kind),) = devices
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return Path("results") / ("gpu" if kind == "cuda" else "cpu") / slug / plan.name


def _withheld(plan: Plan) -> list[str]:
    """Return the data sets whose images are not redistributable or are the user's own."""
    return [data.name for data in plan.data if data.kind == _USERS_OWN or not datasets()[data.kind].redistributable]


def _metrics(collection: Collection) -> pd.DataFrame | None:
    """Return one row per image, run and protocol."""
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
    """Return the gradients recorded with and without intermediate outputs."""
    frames = {run.folder.name: run.table("gradients.csv") for run in collection.gradients}
    available = [frame.assign(variant=variant) for variant, frame in frames.items() if frame is not None]
    return pd.concat(available, ignore_index=True) if available else None


def _readme(
    plan: Plan, collection: Collection, out: Path, withheld: list[str], command: str, copies: dict[str, str]
) -> str:
    """Return the README: the contents of the folder and the conditions of the measurements."""
    contents = {
        "tables": "`tables/*.csv`: the numbers of the tables",
        "metrics.csv": "`metrics.csv`: one row per test image, run and protocol",
        "manifests": "`manifests/*.csv`: the names and checksums of the images",
        "gradients.csv": "`gradients.csv`: gradients recorded with and without intermediate outputs",
        "speed.csv": "`speed.csv`: results of `msgunet bench`",
        "weights": "`weights/*.safetensors`: the generators",
    }
    lines = [f"# Results of the suite '{markdown(plan.name)}'", ""]
    lines += [markdown(plan.suite.description), ""] if plan.suite.description else []
    lines += [f"- written by {markdown_code(command)}; `{plan.name}.yaml` is the suite"]
    lines += [f"- {text}" for name, text in contents.items() if (out / name).exists()]
    if (out / "metrics.csv").exists():
        commits = sorted({run.evaluation_facts()["commit"] for run in collection.runs if run.evaluation_facts()})
        lines += ["", "To verify these results in another checkout, with this folder there as FOLDER:", ""]
        if all(re.fullmatch("[0-9a-f]+", commit) for commit in commits):
            lines += [f"- `git checkout {' or '.join(commits)}`, then `make environment`"]
        if missing := [data.name for data in plan.data if data.kind == _USERS_OWN]:
            lines += [
                f"- put the images of {', '.join(missing)} where `{plan.name}.yaml` names them; they are not here"
            ]
        for file, copy in copies.items():
            lines += [f"- {markdown_code(f'cp FOLDER/{copy} {file}')}: the method's file where the suite expects it"]
        lines += [f"- `snakemake --cores all --config suite=FOLDER/{plan.name}.yaml` runs the suite again"]
        lines += ["- `msgunet verify FOLDER` compares, row by row: *equal* on the same processor with as many threads"]
        if (out / "weights").exists():
            lines += ["- or, without training: `msgunet verify FOLDER --images 3` lets the shared generators translate"]
        lines += [""]
    speed = collection.speed()
    notes = [] if speed is None else [f"timed on {device_of(speed)}, commit {speed['commit'].iloc[0]}"]
    if (out / "tables").exists():
        notes += [collection.data_conditions(dataset) for dataset in plan.suite.datasets]
        notes += [collection.environment()]
        notes += [sentence for dataset in collection.datasets for sentence in collection.unfinished(dataset)]
    if withheld and (out / "figures").exists():
        notes.append(f"no images of {', '.join(withheld)}")
    lines += [f"- {markdown(note)}" for note in notes]
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.md"))
    lines += ["", *(f"- [{file}]({file})" for file in files)]
    lines += [f"- ![{path.stem}]({path.relative_to(out).as_posix()})" for path in sorted(out.rglob("*.png"))]
    return "\n".join(lines) + "\n"
