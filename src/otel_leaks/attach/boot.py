"""
Runs a private copy of this package inside of another process, and removes it again.

The command sends the modules as code objects, since the process may not have the package, may
have another version of it, or may see other files. They get names of their own, so that a copy
that the process uses itself is left alone. Each is in ``sys.modules`` only while it is executed:
dataclasses look there for the module of a class. An ``__import__`` of their own resolves their
imports of each other; the interpreter takes it from the builtins of their globals.

This module is executed on its own, before there is a package: it imports nothing of ours.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

PACKAGE = "otel_leaks"


class Copy:
    """
    A private copy of the package.

    Args:
        codes: By module name: its marshalled code, its file, and whether it is a package.
        name: The name of the package here; unique in the process.
    """

    def __init__(self, codes: Mapping[str, tuple[bytes, str, bool]], name: str) -> None:
        self._codes = codes
        self._name = name
        self._modules: dict[str, ModuleType] = {}
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._import_other = builtins.__import__

    def load(self, name: str) -> ModuleType:
        """
        Return a module of the copy; execute it the first time.

        Raises:
            KeyError: There is no module of this name.
        """
        if name in self._modules:
            return self._modules[name]
        parent, _, last = name.rpartition(".")
        above = self.load(parent) if parent else None
        if name in self._modules:  # The parent package has imported it.
            return self._modules[name]
        import marshal

        data, file, is_package = self._codes[name]
        module = ModuleType(self._name + name[len(PACKAGE) :])
        space = vars(module)
        space.update(__builtins__=self._builtins, __file__=file)
        if is_package:
            space["__path__"] = []
        self._modules[name] = module
        sys.modules[module.__name__] = module
        try:
            exec(marshal.loads(data), space)  # noqa: S102, S302 - written by the command itself
        finally:
            sys.modules.pop(module.__name__, None)
        if above is not None:
            setattr(above, last, module)
        return module

    def remove(self) -> None:
        """Break the cycles, so that little is left for the garbage collector."""
        while self._modules:
            vars(self._modules.popitem()[1]).clear()
        self._builtins.clear()

    def _import(
        self,
        name: str,
        space: Mapping[str, Any] | None = None,
        local: Mapping[str, Any] | None = None,
        names: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> Any:
        if name != PACKAGE and not name.startswith(f"{PACKAGE}."):
            return self._import_other(name, space, local, names, level)
        module = self.load(name)
        if not names:
            return self.load(PACKAGE)
        for each in names:
            if not hasattr(module, each) and f"{name}.{each}" in self._codes:
                self.load(f"{name}.{each}")
        return module


def remove(folder: str) -> None:
    """Delete the command's files and *folder*, as far as this process may."""
    for name in ("visit.py", "engine", "socket"):
        with contextlib.suppress(OSError):
            os.unlink(f"{folder}/{name}")  # noqa: PTH108 - pathlib need not be imported there
    with contextlib.suppress(OSError):
        os.rmdir(folder)  # noqa: PTH106


def visit(folder: str, engine: Mapping[str, Any]) -> None:
    """
    Connect to the command that waits in *folder*, and answer it until it disconnects.

    Raises nothing, prints nothing.

    Args:
        folder: The folder of its socket.
        engine: ``codes`` and ``name`` of a copy.
    """
    copy = None
    try:
        # Not the socket module, which gevent replaces.
        from _socket import AF_UNIX, SOCK_STREAM, socket

        connection = socket(AF_UNIX, SOCK_STREAM)
        try:
            # The application may have set a default timeout.
            connection.settimeout(None)
            connection.connect(f"{folder}/socket")
            # Now, so that nothing stays even if the command is killed.
            remove(folder)
            copy = Copy(engine["codes"], engine["name"])
            copy.load(f"{PACKAGE}.attach.guest").be_a_guest(connection)
        finally:
            if copy is not None:
                copy.remove()
            connection.close()
    except BaseException:  # noqa: S110 - the process is not ours: nothing may be raised in it
        pass
