from __future__ import annotations

import asyncio.queues
import sysconfig
from pathlib import Path

import hypothesis
import pytest

from otel_leaks.libraries import created_in_library, is_library, is_own, own_frame
from otel_leaks.model import Frame, Origin, Site

LIBRARY = f"{sysconfig.get_path('stdlib')}/queue.py"

SOURCES = Path(__file__).parents[1] / "src" / "otel_leaks"


@pytest.mark.parametrize(
    "file",
    [
        asyncio.queues.__file__,
        LIBRARY,
        hypothesis.__file__,
        "<frozen importlib._bootstrap>",
        "/srv/app/.venv/lib/python3.12/site-packages/httpx/_client.py",
        "/usr/lib/python3/dist-packages/yaml/loader.py",
        r"C:\app\venv\Lib\site-packages\httpx\_client.py",
    ],
)
def test_python_and_what_is_installed_are_libraries(file: str) -> None:
    assert is_library(file)


@pytest.mark.parametrize(
    "file",
    [
        __file__,
        str(SOURCES / "libraries.py"),  # An editable install: this package.
        "/srv/app/jobs.py",
        "/srv/app/site-packages.py",
        "/srv/my-site-packages-tool/run.py",
        "<stdin>",
        "app.py",
    ],
)
def test_all_else_is_the_applications(file: str) -> None:
    assert not is_library(file)


OUTER = Frame("app.main", "/srv/app/main.py", 1)
INNER = Frame("app.jobs.run", "/srv/app/jobs.py", 7)
GET = Frame("queue.Queue.get", LIBRARY, 171)


def test_its_own_frame_is_the_first_from_where_it_waits_outwards() -> None:
    serve = Frame("lib.serve", "/x/site-packages/lib.py", 3)
    assert [own_frame(each) for each in ((serve, OUTER, INNER, GET), (INNER,), (GET,), ())] == [
        INNER,
        INNER,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (Origin("lib.Client.open", "/x/site-packages/lib.py", 3), True),
        (Origin("app.main", "/srv/app/main.py", 3), False),
        (Origin("", "", 0), None),
        (None, None),
    ],
)
def test_what_created_it_is_recognized_by_its_file(
    origin: Origin | None, expected: bool | None
) -> None:
    site = Site("asyncio_task", ("app.run",), 1, "0" * 12, origin=origin)
    assert created_in_library(site) is expected


def test_the_shop_of_the_demo_is_an_application_wherever_it_is_installed() -> None:
    file = str(Path(sysconfig.get_path("purelib"), "otel_leaks", "demo", "shop.py"))
    assert is_own(file, "otel_leaks.demo.shop")
    assert not is_own(file, "otel_leaks.demolition")
    assert not is_own("/srv/otel_leaks/monitor/watch.py", "otel_leaks.monitor.watch")
