"""Whether one's own images are those of their manifest, and those behind shared results; and which of them differ."""

from pathlib import Path

from msgunet.core.files import sha256_file
from msgunet.core.text import limited
from msgunet.data.manifest import read_manifest
from msgunet.data.prepare import check_prepared
from msgunet.suite.plan import Plan
from msgunet.suite.record import SharedRun, manifest_name
from msgunet.suite.runs import RunPlan

# Images that a line names.
_NAMED = 3


def changed_images(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Return the test images of a prepared data set whose pixels are not those of the manifest, or are missing.

    Returns:
        For each problem, in the order of the manifest, its text, and the image's id if it is a target.

    """
    if not (folder / "manifest.csv").is_file():
        return {}
    targets = {str(folder / pair.target): pair.id for pair in read_manifest(folder / "manifest.csv", "test")}
    problems = check_prepared(folder, "test")
    return {p: next((name for path, name in targets.items() if path in p), None) for p in problems}


def own_images(plan: Plan) -> list[str]:
    """Return the problems with the test images that are prepared here: they are not those of their manifest."""
    problems = []
    for folder in dict.fromkeys(data.folder for data in plan.data):
        lines = [f"{problem}, so numbers of this image prove nothing" for problem in changed_images(folder)]
        problems += limited(lines, f"images in {folder}")
    return problems


def other_images(folder: Path, run: SharedRun, own: RunPlan, prepare: str) -> str | None:
    """Return why one's own prepared images are not those of a shared run, and which differ; None if they are the same.

    Args:
        folder: the shared results.
        run: the shared run.
        own: one's own run with the same data set, entry and seed.
        prepare: the command that prepares the images, for advice.

    """
    here = Path(own.settings.data) / "manifest.csv"
    same_folder = run.settings["data"] == own.settings.data
    if same_folder and (not here.is_file() or sha256_file(here) == run.evaluation.get("manifest_sha256")):
        return None
    name = own.settings.dataset
    head = f"the prepared images of {name} are not the shared ones"
    if not same_folder:
        head += f" ({run.settings['data']} → {own.settings.data})"
    there = folder / manifest_name(name)
    if not there.is_file():
        return f"{head}: the shared folder has no list of its images that would tell which differ"
    if not here.is_file():
        return f"{head}: the files in your folder have other names or sizes; to learn which, run '{prepare}'"
    return f"{head}: {_differences(there, here)}"


def _differences(there: Path, here: Path) -> str:
    before, now = ({k: v for pair in read_manifest(path) for k, v in pair.files().items()} for path in (there, here))
    found = {
        "with other pixels": [file for file in before if file in now and before[file] != now[file]],
        "missing here": [file for file in before if file not in now],
        "only here": [file for file in now if file not in before],
    }
    texts = []
    for what, files in found.items():
        if files:
            more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
            texts.append(f"{len(files)} {what} ({', '.join(files[:_NAMED])}{more})")
    return ", ".join(texts) or "all pixels are the same, but the files have other names or sizes"
