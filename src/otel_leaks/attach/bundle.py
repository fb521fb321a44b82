"""
What the command sends into a process: a few lines of Python, and the code of this package.

The code is sent as code objects, not as source: compiling half a megabyte would delay the
process. ``sys.remote_exec`` requires that both sides have the same minor version of Python.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import secrets
from functools import cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import otel_leaks

__all__ = ["engine", "script"]

_ROOMS = ("model", "errors", "libraries", "ignores", "runtime", "origins", "census")
_OF_ATTACH = ("", ".guest", ".pulse", ".why", ".wire")

_SCRIPT = """\
def visit(folder={folder!r}):
    import _thread
    def run():
        try:
            import marshal
            with open(folder + "/engine", "rb") as file:
                engine = marshal.loads(file.read())
            space = {{"__name__": engine["name"] + ".boot"}}
            exec(marshal.loads(engine["boot"]), space)
            space["visit"](folder, engine)
            space.clear()
        except BaseException:
            pass
    try:
        # The old name of start_new_thread: gevent and eventlet replace the new one alone.
        getattr(_thread, "start_new", _thread.start_new_thread)(run, ())
    except BaseException:
        pass
visit()
"""


def script(folder: str) -> bytes:
    """
    Return the script that the process executes in its main thread; it starts another thread.

    Args:
        folder: The folder with the engine and the socket, as the process sees it.
    """
    return _SCRIPT.format(folder=folder).encode()


def engine() -> bytes:
    """Return the code of the modules that are needed there."""
    return marshal.dumps(
        {
            "name": f"_otel_leaks_{secrets.token_hex(4)}",
            "boot": _code_of("otel_leaks.attach.boot")[0],
            "codes": {name: _code_of(name) for name in _names()},
        }
    )


def _names() -> list[str]:
    folder = Path(otel_leaks.__file__).parent
    names = ["otel_leaks", *(f"otel_leaks.attach{each}" for each in _OF_ATTACH)]
    for room in _ROOMS:
        names.append(f"otel_leaks.{room}")
        for path in sorted((folder / room).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            inner = parts[:-1] if parts[-1] == "__init__" else parts
            names.append(".".join(("otel_leaks", *inner)))
    return list(dict.fromkeys(names))


@cache
def _code_of(name: str) -> tuple[bytes, str, bool]:
    """Return the marshalled code of a module, its file, and whether it is a package."""
    spec = importlib.util.find_spec(name)
    assert isinstance(spec, ModuleSpec)
    loader: Any = spec.loader
    # From the loader, which may have cached the code. pytest's loader, which rewrites the
    # assertions of installed plugins, has no get_code().
    if not hasattr(loader, "get_code"):
        loader = SourceFileLoader(name, os.fspath(spec.origin or ""))
    code: CodeType | None = loader.get_code(name)
    assert code is not None
    is_package = spec.submodule_search_locations is not None
    return marshal.dumps(code), os.fspath(spec.origin or ""), is_package
