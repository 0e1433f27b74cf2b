"""Advice on which extra to install when a verb lacks a package."""

import json
import re
import shlex
from urllib.parse import unquote, urlsplit

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
        f"pip install {_requirement(extra, project.read_text('direct_url.json'))}"
    )


def _requirement(extra: str, direct_url: str | None) -> str:
    """Return this project with an extra, from the source that it was installed from, in the form that pip accepts."""
    source = json.loads(direct_url or "{}")
    url = source.get("url", "")
    if source.get("dir_info", {}).get("editable"):
        # A copy would lose the checkout that the suites are in.
        return f"-e {shlex.quote(unquote(urlsplit(url).path) + f'[{extra}]')}"
    if "vcs_info" in source:
        url = f"{source['vcs_info']['vcs']}+{url}@{source['vcs_info']['commit_id']}"
    return f"'msgunet[{extra}]{url and f' @ {url}'}'"
