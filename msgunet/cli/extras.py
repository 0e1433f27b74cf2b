"""Advice on which extra to install when a verb lacks a package."""

import json
import re

# Modules whose package has a different name.
_PACKAGES = {"yaml": "pyyaml", "mpl_toolkits": "basemap-data"}
# The preferred extra of a verb, if several extras contain a package; `suite` for all other verbs.
_PREFERRED = {"export": "onnx"}


def advice(verb: str, module: str | None) -> str | None:
    """Return advice for a `verb` that lacks `module`; None if no extra of the project contains it."""
    from importlib.metadata import PackageNotFoundError, distribution

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
    preferred = _PREFERRED.get(verb, "suite")
    extra = preferred if preferred in extras else extras[0]
    return (
        f"'msgunet {verb}' needs the package {package}, which is part of the extra '{extra}': "
        f"pip install 'msgunet[{extra}]{_source(project.read_text('direct_url.json'))}'"
    )


def _source(direct_url: str | None) -> str:
    """Return the source of this installation, in the form that pip accepts."""
    if direct_url is None:
        return ""
    source = json.loads(direct_url)
    if "vcs_info" in source:
        return f" @ {source['vcs_info']['vcs']}+{source['url']}@{source['vcs_info']['commit_id']}"
    return f" @ {source['url']}"
