"""HTML pages for people: one file each, readable on paper and on a telephone, that load nothing and run nothing.

Whatever is not `Markup` is escaped: names of images, classes and models go in as they are.
"""

from collections.abc import Iterable, Sequence

from markupsafe import Markup

_STYLE = """\
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 72rem; margin: 0 auto;
  padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { max-width: 48rem; margin: .5rem 0; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding-bottom: .25rem; }
th, td { padding: .3rem .75rem .3rem 0; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top;
  white-space: nowrap; }
.text { text-align: left; white-space: normal; min-width: 6rem; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
tbody th { font-weight: normal; }
tbody tr:hover { background: #f4f6f8; }
figure { margin: .75rem 0; overflow-x: auto; }
figure svg { display: block; width: 100%; max-width: 46rem; min-width: 23rem; height: auto; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll, figure { overflow: visible; }
  figure svg { min-width: 0; }
  h2 { break-after: avoid; }
  tr, figure { break-inside: avoid; }
}
"""

# What a browser would load or run if a bug let markup of others in: nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, body: Markup) -> str:
    """A whole HTML document with `title` as its heading; pictures in `body` must be inline SVG or data: URLs."""
    return Markup(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="{}">\n'
        "<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<h1>{}</h1>\n{}\n</body>\n</html>\n"
    ).format(Markup(_POLICY), title, Markup(_STYLE), title, body)  # noqa: S704 - both are constants of ours


def section(title: str, *parts: Markup) -> Markup:
    """A heading and what belongs below it."""
    return Markup("<section>\n<h2>{}</h2>\n{}\n</section>\n").format(title, Markup("\n").join(parts))


def paragraph(text: str) -> Markup:
    """One paragraph of text."""
    return Markup("<p>{}</p>").format(text)


def bullets(lines: Iterable[str]) -> Markup:
    """A list, one item a line; nothing for no line."""
    items = Markup("").join(Markup("<li>{}</li>\n").format(line) for line in lines)
    return Markup("<ul>\n{}</ul>").format(items) if items else items


def table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", text_columns: int = 1
) -> Markup:
    """Cells as they are; the first `text_columns` columns are text, to the left, the others numbers, to the right.

    The first cell of a row heads it. Scrolls sideways where the page is narrow.
    """
    classes = [' class="text"' if n < text_columns else "" for n in range(len(headers))]
    head = _cells("th", ' scope="col"', headers, classes)
    body = Markup("\n").join(
        Markup("<tr>{}{}</tr>").format(
            _cells("th", ' scope="row"', row[:1], classes), _cells("td", "", row[1:], classes[1:])
        )
        for row in rows
    )
    title = Markup("<caption>{}</caption>\n").format(caption) if caption else ""
    return Markup(
        '<div class="scroll" tabindex="0"><table>\n{}<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table></div>'
    ).format(title, head, body)


def plot(svg: str) -> Markup:
    """An SVG of ours (`plots`), inline."""
    return Markup("<figure>\n{}</figure>").format(Markup(svg))  # noqa: S704 - matplotlib has escaped every name in it


def _cells(tag: str, scope: str, texts: Sequence[str], classes: Sequence[str]) -> Markup:
    return Markup("").join(
        Markup("<{0}{1}{2}>{3}</{0}>").format(tag, Markup(scope), Markup(kind), text)  # noqa: S704 - constants of ours
        for text, kind in zip(texts, classes, strict=False)
    )
