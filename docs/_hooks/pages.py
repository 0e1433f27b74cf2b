"""What the site shows beyond the files in docs/: the references, made from the code, and two files of the root."""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference import command_reference, suite_reference

ROOT = Path(__file__).resolve().parents[2]

# Files beside docs/ that are pages of the site.
_PAGES = {"CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md"}
# What a page says where a reference belongs.
_REFERENCES = {
    "<!-- every key of a suite -->": suite_reference,
    "<!-- every verb -->": command_reference,
}
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie beside docs/."""
    for name, page in _PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the references, and lead links to where things are on the site."""
    uri = page.file.src_uri
    name = next((name for name, where in _PAGES.items() if where == uri), f"docs/{uri}")
    folder = str(PurePosixPath(name).parent)
    markdown = _LINK.sub(lambda match: _on_the_site(match, folder), markdown)
    for mark, reference in _REFERENCES.items():
        if mark in markdown:
            markdown = markdown.replace(mark, reference())
    return markdown


def _on_the_site(match: re.Match[str], folder: str) -> str:
    """A link of a file in `folder` of the repository; to a file that is no page of the site, its name alone."""
    text, target, anchor = match[1], match[2], match[3] or ""
    if "://" in target:
        return match[0]
    place = normpath(f"{folder}/{target}")
    if place in _PAGES:
        return f"[{text}]({_PAGES[place]}{anchor})"
    if place.startswith("docs/"):
        return f"[{text}]({relpath(place, 'docs')}{anchor})"
    return f"`{text}`" if text.strip("`") == text else text
