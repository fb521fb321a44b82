"""
The variables of running functions, which the garbage collector does not see from 3.11 on.

From 3.13 on a frame shows them through a proxy (https://peps.python.org/pep-0667/). Before,
``f_locals`` of a running frame copies them into a dict that belongs to the frame, and keeps all
values alive until the frame ends; ``locals()`` returns the same dict there. The copy is therefore
emptied if nothing else references it, in the same step in which that is checked. While functions
are traced it is left alone: the debugger writes it back, and it is renewed at each event.
"""

from __future__ import annotations

import inspect
import sys
import threading
import types
from itertools import compress
from typing import Any

__all__ = ["variables_of"]

_HAS_PROXIES = sys.version_info >= (3, 13)
_OWNERS = 4
"""Reference count of a copy that only its frame owns: the frame, our list, and the two calls."""


def variables_of(frame: types.FrameType) -> dict[str, Any]:
    """Return the variables of a running function; empty for a module, as they are its globals."""
    if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        names = frame.f_locals
        # In the body of a class it is the namespace that the metaclass created.
        return dict(names) if type(names) is dict and names is not frame.f_globals else {}
    if _HAS_PROXIES:
        return dict(frame.f_locals)
    copies = [frame.f_locals]
    found = dict(copies[0])
    if frame.f_trace is None and sys.gettrace() is None and threading.gettrace() is None:
        # One call into C: no other thread runs between the count and the emptying.
        counts = map(sys.getrefcount, copies)
        list(map(dict.clear, compress(copies, map(_OWNERS.__eq__, counts))))
    return found
