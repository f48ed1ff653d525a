"""Pages: names are escaped, nothing is loaded from anywhere."""

from html.parser import HTMLParser

from markupsafe import Markup

from training.pages import bullets, page, paragraph, section, table

EVIL = "</title><script>alert('x')</script>"


class Outline(HTMLParser):
    """Tags in order, and whatever an attribute would have fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href")]


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    return found


def test_what_is_no_markup_is_escaped_wherever_it_stands() -> None:
    body = section(EVIL, paragraph(EVIL), bullets([EVIL]), table([EVIL, EVIL], [[EVIL, EVIL]], caption=EVIL))
    found = outline(page(EVIL, body))
    assert "script" not in found.tags
    assert found.fetched == []
    assert found.tags.count("td") == 1
    assert {"h1", "h2", "p", "li", "caption"} <= set(found.tags)


def test_a_page_forbids_the_browser_to_load_or_run_anything() -> None:
    text = page("quiet", Markup(""))
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert '<meta name="viewport"' in text


def test_text_columns_stand_to_the_left_and_each_row_is_headed_by_its_first_cell() -> None:
    text = table(["model", "less", "points"], [["a", "b", "1.0"], ["c", "d", "2.0"]], text_columns=2)
    assert text.count('<th scope="row" class="text">') == 2
    assert '<td class="text">b</td><td>1.0</td>' in text


def test_no_lines_make_no_list() -> None:
    assert bullets([]) == ""
