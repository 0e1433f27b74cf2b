"""Site content beyond the files in docs/: references generated from the code, and two files of the repository root."""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference import command_reference, suite_reference

ROOT = Path(__file__).resolve().parents[2]

# Files outside docs/ that are pages of the site.
_PAGES = {"CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md"}
# The marks that pages contain where a reference is inserted.
_REFERENCES = {
    "<!-- every key of a suite -->": suite_reference,
    "<!-- every verb -->": command_reference,
}
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose files are outside docs/."""
    for name, page in _PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert the references, and change links to the addresses on the site."""
    uri = page.file.src_uri
    name = next((name for name, where in _PAGES.items() if where == uri), f"docs/{uri}")
    folder = str(PurePosixPath(name).parent)
    markdown = _LINK.sub(lambda match: _on_the_site(match, folder), markdown)
    for mark, reference in _REFERENCES.items():
        if mark in markdown:
            markdown = markdown.replace(mark, reference())
    return markdown


def _on_the_site(match: re.Match[str], folder: str) -> str:
    """Adapt a link in a file in `folder` of the repository. A link to a file outside the site becomes its text."""
    text, target, anchor = match[1], match[2], match[3] or ""
    if "://" in target:
        return match[0]
    path = normpath(f"{folder}/{target}")
    if path in _PAGES:
        return f"[{text}]({_PAGES[path]}{anchor})"
    if path.startswith("docs/"):
        return f"[{text}]({relpath(path, 'docs')}{anchor})"
    return f"`{text}`" if text.strip("`") == text else text
