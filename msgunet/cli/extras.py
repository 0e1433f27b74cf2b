"""Packages that a verb needs and that are not installed: which extra brings them."""

import json
import re
from importlib.metadata import PackageNotFoundError, distribution

# Modules whose package has another name.
_PACKAGES = {"yaml": "pyyaml", "mpl_toolkits": "basemap-data"}
# Where several extras bring a package: the one for a verb, `suite` for all others.
_OF_VERBS = {"export": "onnx"}


def advice(verb: str, module: str | None) -> str | None:
    """What to say when `verb` found no `module`; None where no extra of the project brings it."""
    name = (module or "").split(".")[0]
    package = _PACKAGES.get(name, name)
    try:
        project = distribution("msgunet")
    except PackageNotFoundError:
        return None
    pattern = re.compile(rf"{re.escape(package)}\b[^;]*; extra == ['\"](\w+)['\"]")
    extras = [match[1] for requirement in project.requires or () if (match := pattern.match(requirement))]
    if not extras:
        return None
    usual = _OF_VERBS.get(verb, "suite")
    extra = usual if usual in extras else extras[0]
    return (
        f"'msgunet {verb}' needs the package {package}, which the extra '{extra}' brings: "
        f"pip install 'msgunet[{extra}]{_source(project.read_text('direct_url.json'))}'"
    )


def _source(direct_url: str | None) -> str:
    """Where this installation came from, as pip takes it."""
    if direct_url is None:
        return ""
    found = json.loads(direct_url)
    if "vcs_info" in found:
        return f" @ {found['vcs_info']['vcs']}+{found['url']}@{found['vcs_info']['commit_id']}"
    return f" @ {found['url']}"
