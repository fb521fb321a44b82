from __future__ import annotations

import subprocess
import sys
from types import CodeType

from otel_leaks.runtime.remembered import Remembered


def a_code() -> CodeType:
    return compile("1", "made.py", "eval")


def test_what_was_found_is_found_once_for_each_question() -> None:
    remembered: Remembered[str] = Remembered(10)
    code, asked = a_code(), []

    def find() -> str:
        asked.append(1)
        return f"answer {len(asked)}"

    said = [remembered.of(code, find), remembered.of(code, find), remembered.of(code, find, "name")]
    assert said == ["answer 1", "answer 1", "answer 2"]


def test_what_is_gone_is_forgotten_and_its_address_is_not_mistaken_for_it() -> None:
    remembered: Remembered[int] = Remembered(10_000)
    said = []
    for number in range(1000):
        code = a_code()
        said.append(remembered.of(code, lambda number=number: number))  # type: ignore[misc]
        del code
    assert said == list(range(1000))
    assert len(remembered._known) == 0


def test_as_much_is_kept_as_configured() -> None:
    remembered: Remembered[int] = Remembered(10)
    codes = [a_code() for _ in range(100)]
    for code in codes:
        remembered.of(code, lambda: 1)
    assert len(remembered._known) <= 10


def test_what_outlives_the_modules_globals_is_forgotten_in_silence() -> None:
    program = """
from otel_leaks.runtime import remembered, wrappers
import asyncio, gc
code = compile("async def wraps(coro): await coro", asyncio.__file__, "exec").co_consts[0]
print(wrappers.wrapper_of(code) is not None)
# As the interpreter does at its end.
for module in (remembered, wrappers):
    vars(module).update(dict.fromkeys([each for each in vars(module) if each != "_known"]))
kept, wrappers._known = wrappers._known, None
del code
gc.collect()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
