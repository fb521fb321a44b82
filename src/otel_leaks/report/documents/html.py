"""
One HTML file that needs no other, and runs no script: text, and the stacks as an icicle graph.

Everything that comes from a process is escaped, and the file's own policy forbids whatever is not
in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape

from otel_leaks.report.document import Document, Entry
from otel_leaks.report.documents.folded import path_of
from otel_leaks.report.documents.text import stack_rows
from otel_leaks.report.texts import between

__all__ = ["write"]

MAX_LEVELS = 64
"""Of the graph; a stack may have a thousand."""
MIN_SHARE = 0.001
"""Of its whole width, below which a bar is left out."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #e8a33d55; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; }
ul.facts { padding-left: 1.2rem; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .6rem 0;
  padding: .5rem .8rem; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
pre { background: var(--soft); overflow-x: auto; padding: .6rem; border-radius: .3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .5rem 0; }
dt { opacity: .75; } dd { margin: 0; overflow-wrap: anywhere; }
.icicle { font-size: 12px; margin-bottom: .8rem; overflow-x: auto; }
.icicle > div { min-width: 40rem; }
.row { display: flex; } .node { min-width: 0; }
.bar { background: var(--bar); border: 1px solid var(--line); box-sizing: border-box;
  overflow: hidden; padding: 0 .3rem; text-overflow: ellipsis; white-space: nowrap; }
"""


@dataclass(slots=True)
class _Node:
    """A function of the graph, with what it leads to."""

    count: int = 0
    below: dict[str, _Node] = field(default_factory=dict)


def write(document: Document) -> str:
    """Write a document as an HTML file."""
    entries = [part for i, e in enumerate(document.entries, 1) for part in _entry(i, e)]
    if document.left_out:
        entries.append(f"<p>and {document.left_out} more sites</p>")
    body = [
        f"<h1>{_text(document.title)}</h1>",
        '<ul class="facts">',
        *(f"<li>{_text(fact)}</li>" for fact in document.facts),
        "</ul>",
        *_icicle(document),
        "<h2>Sites</h2>",
        *(entries or ["<p>nothing</p>"]),
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(document.title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *body,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _text(text: str) -> str:
    return escape(between(text))


def _entry(number: int, entry: Entry) -> Iterator[str]:
    is_open = " open" if number <= 3 else ""
    yield f"<details{is_open}><summary>{_text(entry.title)}</summary>"
    stack = stack_rows(entry)
    if stack:
        yield f'<pre tabindex="0">{escape(chr(10).join(stack))}</pre>'
    yield "<dl>"
    rows = entry.rows()
    if entry.ignore:
        rows.append(("ignore", entry.ignore))
    for label, text in rows:
        yield f"<dt>{_text(label)}</dt><dd>{_text(text)}</dd>"
    yield "</dl></details>"


def _icicle(document: Document) -> Iterator[str]:
    """Yield a graph for each kind: of few threads nothing would be seen beside many tasks."""
    roots: dict[str, _Node] = {}
    for entry in document.entries:
        kind, *names = path_of(entry)
        node = roots.setdefault(kind, _Node())
        node.count += entry.count
        for name in names[:MAX_LEVELS]:
            node = node.below.setdefault(name, _Node())
            node.count += entry.count
    if roots:
        yield "<h2>Stacks, by how many objects stand in them</h2>"
    for kind, root in roots.items():
        whole = _Node(root.count, {kind: root})
        yield f'<div class="icicle" tabindex="0" role="group" aria-label="{_text(kind)}">'
        yield '<div class="row">'
        yield from _bars(whole, root.count)
        yield "</div></div>"


def _bars(node: _Node, whole: int) -> Iterator[str]:
    for name, below in sorted(node.below.items(), key=lambda each: -each[1].count):
        if below.count < whole * MIN_SHARE:
            continue
        title = f"{name}: {below.count}"
        yield f'<div class="node" style="width:{100 * below.count / node.count:.3f}%">'
        yield f'<div class="bar" title="{_text(title)}">{_text(title)}</div>'
        if below.below:
            yield '<div class="row">'
            yield from _bars(below, whole)
            yield "</div>"
        yield "</div>"
