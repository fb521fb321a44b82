"""The API for unittest, exported by ``otel_leaks.testing``."""

from __future__ import annotations

import unittest

from otel_leaks.ignores import Ignore
from otel_leaks.testing.grace import Grace
from otel_leaks.testing.verify import verify_none

__all__ = ["LeakTestCase"]


class LeakTestCase(unittest.TestCase):
    """
    A TestCase whose tests fail if they leave something behind.

    Mix it with ``IsolatedAsyncioTestCase`` for async tests. Set ``leak_ignores`` and
    ``leak_grace`` in the class.

    >>> class TestShop(LeakTestCase):
    ...     def test_order(self):
    ...         pass
    >>> TestShop("test_order").run().wasSuccessful()
    True

    .. versionadded:: 0.1
    """

    leak_ignores: tuple[Ignore, ...] = ()
    leak_grace: Grace = Grace()

    def __init__(self, methodName: str = "runTest") -> None:  # noqa: N803 - unittest's own
        super().__init__(methodName)
        method = getattr(self, methodName, None)
        if method is not None:
            # The ignores belong to the class: it does not matter if one test does not need them.
            verify = verify_none(*self.leak_ignores, grace=self.leak_grace)
            verify._warns = False
            setattr(self, methodName, verify(method))
