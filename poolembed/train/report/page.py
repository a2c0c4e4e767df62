"""The skeleton and the look of report.html, and what builds its elements. Whatever is not `Html` is escaped.

A page needs nothing but itself: its policy forbids the browser to load or run anything. Charts inherit its colours,
which follow the reader's choice of light or dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Sequence

from poolembed.text import printable

ROLES = {
    "ink": ("#1c2126", "#e7eaed"),
    "muted": ("#5c6670", "#9aa5b1"),
    "line": ("#dde2e7", "#343b43"),
    "paper": ("#ffffff", "#14181c"),
    "panel": ("#f5f7f9", "#1c2126"),
    "blue": ("#1a66ad", "#74b6f2"),
    "orange": ("#b84e00", "#ffa25c"),
    "violet": ("#7a4fa8", "#c5a3ec"),
    "right": ("#6aa7dc", "#2b6ca3"),
    "wrong": ("#ef9a5a", "#a85a1c"),
}
"""What colours are for: in light, in dark."""


def _colours(theme: int) -> str:
    return " ".join(f"--{role}: {colours[theme]};" for role, colours in ROLES.items())


STYLE = (
    f"""\
:root {{ color-scheme: light dark; {_colours(0)}
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }}
@media (prefers-color-scheme: dark) {{ :root {{ {_colours(1)} }} }}
"""
    + """\
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 var(--font); }
main, header, footer { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 36px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 24px 0 4px; overflow-wrap: anywhere; }
p { margin: 4px 0 12px; max-width: 80ch; overflow-wrap: anywhere; }
.muted, figcaption, footer { color: var(--muted); }
nav { margin: 16px 0 8px; display: flex; flex-wrap: wrap; gap: 4px 18px; }
a { color: var(--blue); }
section { border-top: 1px solid var(--line); padding: 28px 0 20px; }
dl.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0 8px; }
.tiles div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.tiles dt { color: var(--muted); font-size: 13px; }
.tiles dd { margin: 0; font-size: 21px; font-weight: 600; line-height: 1.3; overflow-wrap: anywhere; }
.tiles small { display: block; color: var(--muted); font-size: 13px; font-weight: 400; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 8px 28px; }
figure { margin: 12px 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font-size: 13px; margin-top: 4px; max-width: 80ch; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 10px 0 14px; font-size: 14px; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); font-size: 13px; padding-bottom: 4px; }
th, td { padding: 4px 14px 4px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td { max-width: 48ch; overflow-wrap: break-word; }
td > code { display: inline-block; min-width: 24ch; }
thead th { color: var(--muted); font-weight: 500; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
tr.best > * { font-weight: 600; color: var(--blue); }
td.bar { min-width: 110px; text-align: right;
  background: linear-gradient(var(--right), var(--right)) no-repeat 0 85% / calc(var(--share) * (100% - 14px)) 3px; }
summary { cursor: pointer; color: var(--blue); margin: 6px 0; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 14px; overflow-x: auto;
  font: 13px/1.5 ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace; }
code { font: 0.92em ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
ul { padding-left: 20px; max-width: 80ch; overflow-wrap: anywhere; }
footer { border-top: 1px solid var(--line); padding-top: 14px; padding-bottom: 36px; font-size: 13px; }
@media print { details > * { display: block; } section { break-inside: avoid-page; } }
"""
)

Row = Sequence[str | float | None]

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(content: str) -> Html:
    """As it is if it is HTML, escaped otherwise."""
    return content if isinstance(content, Html) else Html(html.escape(printable(content)))


def element(name: str, *contents: str, **attributes: str) -> Html:
    """An element; a trailing underscore in an attribute's name is dropped (``class_``)."""
    written = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{written}>{''.join(map(escape, contents))}</{name}>")


def paragraph(*contents: str) -> Html:
    """A paragraph."""
    return element("p", *contents)


def listing(items: Iterable[str]) -> Html:
    """A bulleted list."""
    return element("ul", *(element("li", item) for item in items))


def more(summary: str, *contents: str) -> Html:
    """What is shown on demand."""
    return element("details", element("summary", summary), *contents)


def figure(svg: Html, caption: str) -> Html:
    """A chart; the caption says in words what it shows."""
    return element("figure", element("div", svg, class_="scroll"), element("figcaption", caption))


def table(
    head: Sequence[str],
    rows: Iterable[Row],
    *,
    numbers: str,
    bars: Collection[int] = (),
    best: int | None = None,
    caption: str = "",
) -> Html:
    """A table.

    Args:
        head: titles of the columns.
        rows: of cells; None is a dash.
        numbers: how numbers that are not whole are formatted (".3f").
        bars: columns of shares that get a bar beside their number.
        best: the row to emphasise.
        caption: above the table.
    """
    body, numeric = [], set[int]()
    for i, row in enumerate(rows):
        cells = []
        for j, value in enumerate(row):
            if isinstance(value, str):
                cells.append(element("td", value))
                continue
            numeric.add(j)
            if j in bars and value is not None:
                cells.append(element("td", number(value, numbers), class_="bar", style=f"--share: {value:.3f}"))
            else:
                cells.append(element("td", number(value, numbers), class_="number"))
        body.append(element("tr", *cells, **({"class_": "best"} if i == best else {})))
    titles = (
        element("th", t, scope="col", **({"class_": "number"} if j in numeric else {})) for j, t in enumerate(head)
    )
    top = [element("caption", caption)] if caption else []
    made = element("table", *top, element("thead", element("tr", *titles)), element("tbody", *body))
    return element("div", made, class_="scroll")


def number(value: float | None, format: str) -> str:
    """A whole number with separators, another in a format, and a dash for what is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:{format}}"


def page(title: str, *, header: Html, sections: Sequence[tuple[str, str, Html]], footer: Html) -> str:
    """The whole page.

    Args:
        title: of the window and the page.
        header: below the title.
        sections: id, title and content of each.
        footer: at the end.
    """
    links = element("nav", *(element("a", name, href=f"#{key}") for key, name, _ in sections))
    parts = (element("section", element("h2", name), content, id=key) for key, name, content in sections)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            element("title", title),
            f"<style>\n{STYLE}</style></head>",
            "<body>",
            element("header", element("h1", title), header, links),
            element("main", *parts),
            element("footer", footer),
            "</body></html>\n",
        ]
    )
