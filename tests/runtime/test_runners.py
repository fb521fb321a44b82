"""What an object runs when it is called."""

from __future__ import annotations

import operator
from typing import Any

import pytest

from otel_leaks.runtime import runners


class CalledByC:
    __call__ = operator.itemgetter(0)


class CalledByAMethodOfC:
    __call__: Any = (1).__add__


@pytest.mark.parametrize(
    "kind",
    [
        CalledByC,
        CalledByAMethodOfC,
        operator.itemgetter,
        type,
        type((1).__add__),
        type(int.__add__),
    ],
    ids=lambda kind: kind.__name__,
)
def test_what_is_called_in_c_leads_to_no_function(kind: type) -> None:
    assert runners._plan(kind, ()) is None
