"""Raters' instructions: only what Label Studio 1.23.2 lets through, and the examples in it."""

import re
from html.parser import HTMLParser

from mad_backend.label_studio.rating_help import rating_help

TAGS = {"p", "b", "br", "table", "tbody", "tr", "td"}
ATTRIBUTES = {
    "align",
    "bgcolor",
    "border",
    "cellpadding",
    "cellspacing",
    "colspan",
    "height",
    "valign",
    "width",
}


def test_instructions_use_only_tags_and_attributes_that_the_server_keeps() -> None:
    tags, attributes, depth = set(), set(), [0]

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)
            attributes.update(name for name, _ in attrs)
            depth[0] += tag != "br"

        def handle_endtag(self, tag: str) -> None:
            depth[0] -= 1

    Reader().feed(rating_help())
    assert tags <= TAGS
    assert attributes <= ATTRIBUTES
    assert depth == [0]


def test_each_row_of_an_example_is_as_wide_as_the_picture() -> None:
    pictures = re.findall(r"<table width=.*?</table>", rating_help(), re.DOTALL)
    assert len(pictures) == 4
    for picture in pictures:
        rows = re.findall(r"<tr>(.*?)</tr>", picture)[1:]
        assert {sum(map(int, re.findall(r'colspan="(\d+)"', row))) for row in rows} == {24}
        assert sum(int(re.findall(r'height="(\d+)"', row)[0]) for row in rows) == 84
