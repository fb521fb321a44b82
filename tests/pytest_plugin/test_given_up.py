"""A pool that a library's function had for one call ends with that call, not with its traceback."""

from __future__ import annotations

import textwrap

import pytest

from pytest_plugin.conftest import Run

LIBRARY = """
    import sys
    import time
    import weakref
    from concurrent.futures import ThreadPoolExecutor

    class Error(Exception):
        pass

    def _fail():
        raise Error

    def _wait_for_worker(ref):
        # The worker refers to its pool a moment longer, to say that it is idle.
        while not ref()._idle_semaphore._value or sys.getrefcount(ref()) > 2:
            time.sleep(0)

    def call(function=_fail):
        # As asgiref's async_to_sync does: the future has the exception, whose traceback has this.
        pool = ThreadPoolExecutor(1)
        future = pool.submit(int)
        future.result()
        _wait_for_worker(weakref.ref(pool))
        try:
            function()
        except Error as error:
            future.error = error
            raise

    class Client:
        def __init__(self):
            self.itself = self
            self.pool = ThreadPoolExecutor(1)
            self.pool.submit(int).result()
            _wait_for_worker(weakref.ref(self.pool))

    def client():
        client = Client()
        raise Error

    def handed_out():
        pool = ThreadPoolExecutor(1)
        pool.submit(int).result()
        _wait_for_worker(weakref.ref(pool))
        try:
            raise Error
        except Error as error:
            return pool, error

    def numbers():
        pool = ThreadPoolExecutor(1)
        pool.submit(int).result()
        _wait_for_worker(weakref.ref(pool))
        yield 1
        yield 2
"""

SUITE = """
    import gc
    import library
    import pytest

    errors = []

    def fails(function):
        with pytest.raises(library.Error) as error:
            function()
        return error.value
"""


@pytest.fixture
def run_with_library(run: Run, pytester: pytest.Pytester) -> Run:
    """Return what runs a suite beside ``library``, which is installed."""
    folder = pytester.mkdir("site-packages")
    (folder / "library.py").write_text(textwrap.dedent(LIBRARY), encoding="utf-8")

    def run_suite(source: str, *args: str, **more: object) -> pytest.RunResult:
        return run(
            SUITE + textwrap.indent(textwrap.dedent(source), " " * 4),
            *("-opythonpath=site-packages", "--leaks", *args),
            **more,
        )

    return run_suite


@pytest.mark.parametrize("collection", ["pass", "gc.collect()"])
def test_a_pool_that_only_tracebacks_of_its_call_keep_is_no_leak(
    run_with_library: Run, collection: str
) -> None:
    result = run_with_library(
        f"""
        def test_cycle():
            fails(library.call)
            {collection}

        def test_kept():
            errors.append(fails(library.call))
            {collection}

        def test_within_another():
            def function():
                fails(library.call)
                {collection}
                raise library.Error

            fails(lambda: library.call(function))
        """
    )
    result.assert_outcomes(passed=3)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*leaked*")


@pytest.mark.parametrize("collection", ["pass", "gc.collect()"])
def test_a_pool_that_anything_else_refers_to_is_a_leak(
    run_with_library: Run, collection: str
) -> None:
    result = run_with_library(
        f"""
        handed_out = []

        def test_attribute():
            fails(library.client)
            {collection}

        def test_handed_out():
            handed_out.append(library.handed_out())
            {collection}

        def test_generator():
            handed_out.append(library.numbers())
            next(handed_out[-1])
        """
    )
    result.assert_outcomes(failed=3)


@pytest.mark.parametrize("collection", ["pass", "gc.collect()"])
def test_a_pool_of_the_applications_own_call_is_a_leak(
    run_with_library: Run, collection: str
) -> None:
    result = run_with_library(
        f"""
        import weakref
        from concurrent.futures import ThreadPoolExecutor

        def call():
            pool = ThreadPoolExecutor(1)
            pool.submit(int).result()
            library._wait_for_worker(weakref.ref(pool))
            try:
                raise library.Error
            except library.Error as error:
                itself = [error]
                raise

        def test_it():
            fails(call)
            {collection}
        """
    )
    result.assert_outcomes(failed=1)
