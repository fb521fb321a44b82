"""What is written as JSON is of the published schemas."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from otel_leaks.model import (
    Clients,
    Ended,
    Failure,
    Finished,
    Followed,
    Frame,
    Hidden,
    Operation,
    Origin,
    Pool,
    Sample,
    Site,
)
from otel_leaks.report.as_json import SCHEMAS, Document, leaks_json
from otel_leaks.report.snapshot import Counted, Pauses, Snapshot, Why
from support import schemas

FRAME = Frame("lib.Client.open", "/lib/client.py", 3)
ORIGIN = Origin("app.main", "/app/main.py", 7, scope="test_it.py::test_it", library=FRAME)
SAMPLE = Sample(1, (FRAME,), "Task-1", 0.5, awaited=False, due_s=1.5, origin=ORIGIN)
SITE = Site("asyncio_task", ("lib.Client.run",), 2, "0123456789ab", sample=SAMPLE, origin=ORIGIN)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schemas_are_those_of_the_values(name: Document) -> None:
    # `PYTHONPATH=tests python -m support.schemas` writes them anew. Where a key has gone or has
    # another type, raise the version in as_json.py: others read by it.
    assert schemas.path(name).read_text(encoding="utf-8") == schemas.text(name)


@pytest.mark.parametrize(
    "site",
    [
        pytest.param(Site("event_loop", ("f",), 1, "0" * 12), id="with nothing known"),
        pytest.param(SITE, id="with a sample"),
        pytest.param(replace(SITE, newest=replace(SAMPLE, serial=2)), id="with two samples"),
        pytest.param(
            replace(
                SITE,
                outlived=SAMPLE,
                operations=(Operation(1, 2),),
                ended=Ended(1, (1.0,)),
                quiet_s=1.0,
                followed=Followed((1.0,)),
                clients=Clients(1, 1),
                serving=1,
            ),
            id="of a census in production",
        ),
    ],
)
def test_a_report_is_of_its_schema(site: Site) -> None:
    body = json.loads(leaks_json([site], [Hidden('ignore_task("t")', 1)]))
    schemas.validate("report", body)


def test_what_lives_in_a_process_is_of_its_schema() -> None:
    pool = Pool(1, "mail", (7, 8), 2, 3)
    sample = replace(SAMPLE, backlog=pool, timed=None)
    followed = replace(SITE, sample=sample, followed=Followed((1.0,)), clients=Clients(1, 1))
    operated = replace(SITE, newest=SAMPLE, operations=(Operation(1, 2, name="GET /"),))
    snapshot = Snapshot(
        42,
        "python app.py",
        "3.14.1",
        (Counted("asyncio_task", 4, (followed, operated), 2, (Hidden("ignore_task('t')", 1),)),),
        (pool,),
        (Failure("thread", "OSError", "broken"),),
        Pauses(1, 0.0, 0.01),
        why=Why("app.*", 1, (Finished("app.load", 3, "app.results[…]"),), 0.5, 0.2),
    )
    schemas.validate("ps", json.loads(json.dumps(snapshot.to_json())))


@pytest.mark.parametrize("lacking", ["schema", "fingerprint_scheme", "sites", "hidden"])
def test_the_schema_of_a_report_asks_for_all_of_it(lacking: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    body = json.loads(leaks_json([SITE], []))
    schemas.validate("report", body)
    with pytest.raises(jsonschema.ValidationError):
        schemas.validate("report", {key: body[key] for key in body if key != lacking})


def test_the_page_shows_what_is_of_the_schema() -> None:
    page = (schemas.FOLDER.parent / "json.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    schemas.validate("leaks", json.loads(example))


def test_the_schema_has_no_key_that_it_does_not_name() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    body = json.loads(leaks_json([SITE], []))
    body["sites"][0]["sample"]["more"] = 1
    with pytest.raises(jsonschema.ValidationError):
        schemas.validate("report", body)
