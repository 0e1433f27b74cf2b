"""Checks of the project's own files: consistent versions, pinned requirements, no large files, working links."""

import re
import subprocess
import tomllib

import yaml
from conftest import ROOT

import msgunet


def pins(lines: list[str]) -> dict[str, str]:
    """Return the pinned packages, with version and marker."""
    pinned = {}
    for line in lines:
        match = re.match(r"([A-Za-z0-9_.-]+)==([^\s;]+)\s*(;.*?)?\s*\\?$", line.strip())
        if match:
            assert match[1] not in pinned, f"{match[1]} is pinned twice"
            pinned[match[1]] = f"{match[2]} {match[3] or ''}".strip()
    return pinned


def requirements() -> dict[str, str]:
    return pins((ROOT / "requirements.txt").read_text().splitlines())


def test_conda_and_pip_get_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pins(listed) == requirements()


def test_every_requirement_is_exact_and_hashed():
    text = (ROOT / "requirements.txt").read_text()
    assert text.count("==") >= len(requirements()) > 50
    entries = re.split(r"\n(?=[a-z])", text)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert requirements()["torch"] == "2.11.0"
    assert requirements()["torchvision"] == "0.26.0"
    assert "://" not in text


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert f"version: {msgunet.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {msgunet.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_no_photos_archives_or_weights_are_tracked():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=False)
    files = listed.stdout.split()
    assert not [f for f in files if re.search(r"\.(jpg|jpeg|zip|mat|pth|gz)$", f)]


def test_links_in_the_docs_have_targets():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_container_has_the_environment_of_this_checkout():
    text = (ROOT / "Containerfile").read_text()
    lines = re.sub(r"\\\n *", "", re.sub(r"^#.*\n", "", text, flags=re.M)).splitlines()
    [version] = re.findall(r"^FROM python:([\d.]+)-slim", text, re.M)
    assert f"python={version}" in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied == ["requirements.txt"]
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored == ["*", *(f"!{path}" for path in copied)], "nothing else goes into the image"
    assert all((ROOT / path).is_file() for path in copied)
    [install] = [line for line in lines if "pip install" in line]
    assert "--require-hashes -r /tmp/requirements.txt" in install
    [script] = [line for line in lines if line.startswith("RUN printf")]
    assert 'exec python -m msgunet "$@"' in script
    docs = (ROOT / "docs" / "cluster.md").read_text()
    assert f"python:{version}-slim" in docs
    for program in ("docker", "podman"):
        assert f"{program} build -f Containerfile" in docs
