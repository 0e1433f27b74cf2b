"""What a reader of HTML and Markdown sees."""

from html.parser import HTMLParser

import pytest

_PLACES = {"h1", "h2", "h3", "li", "td", "th", "p", "option", "figcaption", "pre"}


def read_html(html: str) -> list[str]:
    """Return one text for each heading, item, cell, paragraph; scripts and styles are not read."""
    parser, found = HTMLParser(), [""]
    parser.handle_starttag = lambda tag, _: found.append("") if tag in _PLACES else None
    parser.handle_data = lambda text: found.__setitem__(-1, found[-1] + text)
    parser.feed(html)
    return [text.strip() for text in found if text.strip()]


def read_markdown(text: str) -> list[str]:
    """Return one text for each heading, item, cell, paragraph."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return read_html(markdown.render(text))
