"""
The page with its data in one file, which needs no server.

Its modules become one script, in which each is a function that returns its exports. The module
that follows the server is replaced by one that reads the data in the file. Nothing else may
run or be loaded: the file's own policy has the hashes of its script and of its styles.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from otel_leaks.viewer import assets

__all__ = ["standalone"]

_MAIN = "main.js"
_REPLACED = {"stream.js": "recorded.js"}
_IMPORT = re.compile(r'^import (\{[^}]*\}|\w+) from "\./([\w./]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async function|function|const) (\w+))", re.MULTILINE)
_EXPORT_DEFAULT = re.compile(r"^export \{ (\w+) as default \};$", re.MULTILINE)
_HEAD = re.compile(r'<link rel="icon".*</script>\n', re.DOTALL)
_NO_SCRIPT = "which all comes from this machine"


def standalone(data: Mapping[str, Any], *, title: str) -> str:
    """
    Return the file.

    Args:
        data: The data that ``static/recorded.js`` reads; any text in it stays text.
        title: The title of the page before its script runs.
    """
    styles = "\n".join(_text(name) for name in ("vendor/uPlot.min.css", "style.css"))
    # The line breaks at both ends are part of what is hashed.
    script = f"\n{_script()}\n"
    styles = f"\n{styles}\n"
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(styles)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    icon = base64.b64encode(assets.read("icon.svg")).decode()
    head = (
        f'<link rel="icon" href="data:image/svg+xml;base64,{icon}">\n'
        f"<style>{styles}</style>\n"
        # It has no less-than sign, so nothing in it can end the script element.
        f'<script type="application/json" id="recorded">{_json(data)}</script>\n'
        f'<script type="module">{script}</script>\n'
    )
    page, found = _HEAD.subn(lambda _: head, _text("index.html"))
    assert found == 1
    return (
        page.replace(
            '<meta charset="utf-8">\n',
            '<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            1,
        )
        .replace("<title>otel-leaks</title>", f"<title>{escape(title)}</title>", 1)
        .replace(_NO_SCRIPT, "which is all in this file", 1)
    )


def _script() -> str:
    """Return the page's modules as one script, each before those that import it."""
    done: dict[str, str] = {}

    def add(name: str) -> None:
        if name in done:
            return
        text = _text(name)
        for _, needed in _IMPORT.findall(text):
            add(_REPLACED.get(needed, needed))
        done[name] = _function(name, text)

    add(_MAIN)
    return "\n".join(done.values())


def _function(name: str, text: str) -> str:
    """Return a module as a function that is called once."""
    # The vendored module has one export, and more in its comments.
    exported = [f"default: {found}" for found in _EXPORT_DEFAULT.findall(text)]
    exported = exported or [found for _, found in _EXPORT.findall(text)]
    text = _IMPORT.sub(lambda found: _imported(*found.groups()), text)
    text = _EXPORT_DEFAULT.sub("", _EXPORT.sub(r"\1", text))
    return (
        f"const {_variable(name)} = (() => {{\n{text}\nreturn {{ {', '.join(exported)} }};\n}})();"
    )


def _imported(names: str, module: str) -> str:
    wanted = names if names.startswith("{") else f"{{ default: {names} }}"
    return f"const {wanted} = {_variable(_REPLACED.get(module, module))};"


def _variable(name: str) -> str:
    return "of_" + re.sub(r"\W", "_", name.removesuffix(".js"))


def _text(name: str) -> str:
    return assets.read(name).decode()


def _json(data: Mapping[str, Any]) -> str:
    # ASCII; the less-than sign is the only character that HTML interprets in a script.
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
