"""The documentation: it builds without a warning, needs no other site, and says what the code does."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from checkout import copy_checkout
from conftest import ROOT

from msgunet.cli.parser import parser
from msgunet.data.registry import datasets
from msgunet.methods.registry import methods
from msgunet.suite.models import Suite
from msgunet.suite.plan import load_plan

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_ELSEWHERE = {"make", "torchrun", "srun", "git", "source", "tar"}
_TIMING = {"bench", "profile"}
_PROGRAMS = {"msgunet", "snakemake", "cp", *_ELSEWHERE}
# What commands say on a machine without a GPU, data and results.
_MISSING = (
    r"torch finds none|is not prepared|there is no .*run 'snakemake|has not been|Missing input files|speed.csv|"
    "there are no results|marked for report|not a readable generator|no such file|needs .* CITYSCAPES_USERNAME|"
    r"none recorded|cannot use a GPU here|there is no \S+runs\.json"
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


class Page(HTMLParser):
    """The text of a page, the ids in it, and what its tags name in `href`, `src` and the like."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.ids: set[str] = set()
        self.named: list[tuple[str, str]] = []
        self.feed(file.read_text(encoding="utf-8"))

    @property
    def text(self) -> str:
        return "".join(self.words)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.ids |= {values[key] for key in ("id", "name") if key in values}
        self.named += [(tag, values[key]) for key in ("href", "src", "srcset", "data", "poster") if key in values]


def test_no_page_needs_another_site(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for file in pages:
        for tag, target in Page(file).named:
            assert tag == "a" or not re.match(r"[a-z]+:|//", target) or target.startswith("data:"), f"{file}: {target}"
        styles = re.findall(r"url\(\s*['\"]?(?:https?:)?//[^)]*\)|@import[^;]*", file.read_text(encoding="utf-8"))
        assert not styles, f"{file}: {styles}"
    for file in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", file.read_text(encoding="utf-8")), file


def test_links_lead_to_pages_and_places_on_them(site):
    pages = {file: Page(file) for file in site.glob("*.html") if file.name != "404.html"}
    for file, page in pages.items():
        for tag, target in page.named:
            if "://" in target or target.startswith("data:"):
                continue
            path, _, place = target.partition("#")
            there = (file.parent / path).resolve() if path else file
            assert there.is_file() or (there / "index.html").is_file(), f"{file.name}: {target}"
            if tag == "a" and place and there in pages:
                assert place in pages[there].ids, f"{file.name}: {target}"


def keys_of(page: Path) -> dict[str, set[str]]:
    """The first column of the tables below each heading with an id."""
    text = page.read_text(encoding="utf-8")
    parts = re.split(r'<h[23] id="([^"]+)"', text)
    found = zip(parts[1::2], parts[2::2], strict=True)
    return {name: set(re.findall(r"<tr>\s*<td[^>]*><code>([^<]+)</code></td>", part)) for name, part in found}


def test_every_key_of_a_suite_is_in_the_reference(site):
    found = keys_of(site / "suites.html")
    assert found["the-suite"] == set(Suite.model_fields)
    for key, field in Suite.model_fields.items():
        models = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for model in models:
            if hasattr(model, "model_fields"):
                assert found[key] == set(model.model_fields), key
    for name, cls in methods().items():
        assert found[f"method-{name}"] >= set(cls.Options.model_fields), name
    for name, cls in datasets().items():
        assert found[f"data-set-{name}"] >= set(cls.Options.model_fields), name


def test_every_key_has_a_meaning_and_its_default(site):
    text = (site / "suites.html").read_text(encoding="utf-8")
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>\s*(<td.*?)</tr>", text, re.S)]
    cells = [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in rows]
    assert len(cells) > 100
    for row in cells:
        assert len(row) == 4, row
        assert all(row), f"{row[0]} has an empty cell"
    shown = {row[0]: row for row in cells}
    assert shown["checkpoint_minutes"][1:3] == ["number, above 0", "10.0"]
    assert shown["test_every"][1:3] == ["whole number from 2 to 20", "5"]
    assert shown["protocols"][1:3] == ["list, any of native, full", "[native, full]"]


def test_every_verb_is_in_the_command_reference(site):
    page, found = Page(site / "commands.html"), keys_of(site / "commands.html")
    for name, sub in next(action.choices for action in parser()._actions if action.choices).items():
        assert name in page.ids
        assert sub.description in page.text
        actions = [action for action in sub._actions if action.dest != "help"]
        assert len(found[name]) == len(actions)
        for flag in (flag for action in actions for flag in action.option_strings):
            assert any(key.startswith(flag) for key in found[name]), f"{name} {flag}"


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for found, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.M | re.S):
            if found == language:
                yield page.name, block


def test_suites_in_the_docs_are_valid(tmp_path):
    whole = [(name, block) for name, block in blocks("yaml") if {"datasets", "methods"} <= set(yaml.safe_load(block))]
    assert len(whole) >= 2
    for number, (name, block) in enumerate(whole):
        path = tmp_path / f"suite{number}.yaml"
        path.write_text(block)
        assert load_plan(str(path)).runs, name


def commands() -> Iterator[tuple[str, str]]:
    """Page and command line of all blocks that are for a terminal."""
    for language in ("", "sh"):
        for name, block in blocks(language):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] in _PROGRAMS:
                    yield name, shlex.join(words)


def test_commands_in_the_docs_are_understood(capsys):
    ours = [(name, line) for name, line in commands() if line.startswith("msgunet ")]
    assert len(ours) > 10
    for name, line in ours:
        try:
            parser().parse_args(shlex.split(line)[1:])
        except SystemExit:
            pytest.fail(f"{name}: {line}: {capsys.readouterr().err}")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_commands_in_the_docs_run(tmp_path):
    """In a checkout with nothing but code: what trains is tried without doing it, what is missing may be said."""
    folder = copy_checkout(tmp_path / "checkout")
    for name, block in blocks("yaml"):
        if {"datasets", "methods"} <= set(yaml.safe_load(block)):
            page = (ROOT / "docs" / name).read_text()
            (folder / re.search(r"suite=(\w+\.yaml)", page)[1]).write_text(block)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
    # As docs/suites.md makes one.
    shutil.copy(folder / "config" / "demo.yaml", folder / "my.yaml")
    done, left = 0, set()
    for name, line in commands():
        words = shlex.split(line)
        # Run elsewhere: by test_own_data.py; on a real Slurm by test_slurm.py; by .ci/run; by test_training.py;
        # for minutes and hours.
        if name == "own-data.md" or words[0] in _ELSEWHERE or "profiles/slurm" in line or _TIMING & {*words}:
            left.add(words[0])
            continue
        if words[0] == "snakemake" and "--report" not in words:
            words.insert(1, "-n")
        ran = subprocess.run(
            ["bash", "-c", shlex.join(words)], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        missing = ran.returncode in (1, 2) and re.search(_MISSING, ran.stdout + ran.stderr)
        assert ran.returncode == 0 or missing, f"{name}: {line}\n{ran.stdout}{ran.stderr}"
        assert "Traceback" not in ran.stderr.replace("Traceback:", ""), f"{name}: {line}\n{ran.stderr}"
        done += 1
    assert done > 15
    assert left <= {*_ELSEWHERE, "snakemake", "msgunet"}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
def test_the_search_finds_pages_from_disk(site):
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page, asked = browser.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.click("input.md-search__input")
        page.keyboard.type("checkpoint_minutes")
        page.locator(".md-search-result__link").first.wait_for()
        found = page.locator(".md-search-result__link").evaluate_all("links => links.map(link => link.pathname)")
        browser.close()
    assert any(path.endswith("suites.html") for path in found)
    assert all(url.startswith(("file:", "data:")) for url in asked)
