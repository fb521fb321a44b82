"""The names and lines of code objects, which are values: they hold no locals."""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

from otel_leaks.model import Frame

__all__ = ["CodeName", "CodeNames", "Place", "line_of"]

Place = tuple[types.CodeType, int, "int | None"]
"""The position of a frame: its code, the offset of its instruction (``f_lasti``), its line."""


class CodeName(NamedTuple):
    """The name of a code object."""

    function: str
    """``module.qualname``."""
    file: str
    module: str
    """Empty if not known."""


class _Named(weakref.ref[types.CodeType]):
    """A weak reference to a code object, with its name; one callback serves all."""

    __slots__ = ("key", "name")
    key: int
    name: CodeName


class CodeNames:
    """
    The names of code objects, each looked up once.

    Only a frame knows the module, so one has to be read the first time. Code objects are held
    weakly: unloaded ones are forgotten.
    """

    def __init__(self) -> None:
        self._known: dict[int, _Named] = {}
        known = self._known

        def forget(named: Any) -> None:
            # Uses no globals: they may be gone during interpreter shutdown.
            key: int = named.key
            if known.get(key) is named:
                del known[key]

        self._forget = forget

    def known(self, code: types.CodeType) -> CodeName | None:
        """Return the name of *code*, None when it is not known yet."""
        found = self._known.get(id(code))
        return found.name if found is not None and found() is code else None

    def name(
        self, code: types.CodeType, module: object = None, qualname: str | None = None
    ) -> CodeName:
        """
        Return the name of *code*.

        Args:
            code: The code object.
            module: ``__name__`` of the globals it runs with; if not a str, the module is looked
                up by its file, in some 0.1 ms.
            qualname: The qualified name, if known from a coroutine; 3.11 and later read it from
                the code.
        """
        known = self.known(code)
        if known is not None:
            return known
        if type(module) is not str:
            module = _module_of(code.co_filename)
        if sys.version_info >= (3, 11):
            qualname = code.co_qualname
        elif qualname is None:
            qualname = _qualname_3_10(code, module)
        if module is None:
            # The frame ended before it could be read. Try again next time.
            return CodeName(qualname, code.co_filename, "")
        name = CodeName(f"{module}.{qualname}", code.co_filename, module)
        named = _Named(code, self._forget)
        named.key, named.name = id(code), name
        self._known[named.key] = named
        return name

    def of_frame(self, frame: types.FrameType) -> CodeName:
        """Return the name of the function of a frame of the calling thread."""
        return self.name(frame.f_code, frame.f_globals.get("__name__"))

    def frame(self, code: types.CodeType, instruction: int, line: int | None = None) -> Frame:
        """
        Return the position of a function, as a frame of a stack.

        Args:
            code: Its code, whose name is known or found by its file.
            instruction: The offset of its current instruction.
            line: Its current line, if known from a frame; else derived from the offset.
        """
        name = self.name(code)
        return Frame(name.function, name.file, line or line_of(code, instruction))


def line_of(code: types.CodeType, instruction: int) -> int:
    """Return the line of an instruction, or that of the function if the instruction has none."""
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno


MAX_WRAPPED = 10
"""Limit of wrappers around a function that are looked through."""


def _names_of(module: str | None) -> Mapping[str, Any]:
    try:
        # Not getattr(): it would load a lazy module.
        names = object.__getattribute__(sys.modules[module or ""], "__dict__")
    except (AttributeError, KeyError):  # sys.modules may hold anything.
        return {}
    return names if type(names) is dict else {}


_MODULE_OF: dict[str, str | int] = {}
"""By file: the name of its module, or, if none was found, the number of modules at that time."""
MAX_FILES = 10_000


def _module_of(file: str) -> str | None:
    """Find the module of a function by its file, for functions whose frame can't be read."""
    known = _MODULE_OF.get(file)
    if isinstance(known, str):
        if _is_of(known, file):
            return known
    elif known == len(sys.modules):
        return None
    found = next((module for module in list(sys.modules) if _is_of(module, file)), None)
    if len(_MODULE_OF) >= MAX_FILES:
        _MODULE_OF.clear()
    _MODULE_OF[file] = found if found is not None else len(sys.modules)
    return found


def _is_of(module: str, file: str) -> bool:
    found = _names_of(module).get("__file__")
    # A subclass of str may define its own comparison.
    return type(found) is str and found == file


def _qualname_3_10(code: types.CodeType, module: str | None) -> str:
    """Find the qualified name of a function or method in its module; 3.10 has no co_qualname."""
    # https://docs.python.org/3/reference/datamodel.html#codeobject.co_qualname
    for value in list(_names_of(module).values()):
        if type(value) is types.FunctionType and value.__code__ is code:
            return value.__qualname__
        if issubclass(type(value), type):
            members = type.__getattribute__(value, "__dict__")
            if members.get("__module__") != module:
                continue
            for member in list(members.values()):
                function = _function_in(member)
                for _ in range(MAX_WRAPPED):
                    if type(function) is not types.FunctionType:
                        break
                    if function.__code__ is code:
                        return function.__qualname__
                    # It may have been patched, by us or by someone else.
                    function = function.__dict__.get("__wrapped__")
    return code.co_name


def _function_in(member: object) -> object:
    if type(member) in {staticmethod, classmethod}:
        return member.__func__  # type: ignore[attr-defined]
    return member.fget if type(member) is property else member
