"""
Runs each known leak in the versions that its entry names: it has to leak there, and only there.

    python tests/known/verify.py [DISTRIBUTION ...]    # needs a package index
    python tests/known/verify.py --index               # only asks it whether the versions exist

Each version gets an environment of its own, in a folder that is deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
sys.path.insert(0, str(SOURCE))

from otel_leaks.report.hints.known import KNOWN, KnownLeak  # noqa: E402

TIMEOUT_S = 300
OURS = ("packaging",)
"""What the package itself needs there: it is not installed, only its source is on the path."""


@dataclass(frozen=True)
class Case:
    """How an entry is run."""

    program: str
    """In ``programs``."""
    needs: tuple[str, ...] = ()
    """What else has to be installed, such as an older version of what it needs."""
    python: tuple[int, int] | None = None
    """The newest Python on which its versions run; None for any."""


CASES = {
    "aioserial": Case("aioserial_pools"),
    "APScheduler": Case("apscheduler_tornado", ("tornado",)),
    "fastapi-websocket-pubsub": Case("fastapi_websocket_pubsub_reconnect"),
    "fastapi-websocket-rpc": Case(
        "fastapi_websocket_rpc_close", ("pydantic<2", "fastapi<0.100", "tenacity"), (3, 10)
    ),
    "mcp": Case("mcp_stateless", ("pydantic<2.12",)),
    "more-executors": Case("more_executors_retry", ("setuptools<81",)),
    "prometheus-client": Case("prometheus_client_server"),
    "pymodbus": Case("pymodbus_close"),
    "requests-futures": Case("requests_futures_close"),
    "requests-ratelimiter": Case("requests_ratelimiter_close"),
    "sentry-sdk": Case("sentry_sessions"),
    "slack-sdk": Case("slack_sdk_session_runner"),
    "sse-starlette": Case("sse_starlette_watchers"),
    "starlette": Case("starlette_unread_response"),
    "strawberry-graphql": Case("strawberry_init_timeout", ("starlette", "graphql-core<3.3")),
    "websocket-client": Case("websocket_client_ping", ("websockets==15.0.1",)),
    "websockets": Case("websockets_sync_unread"),
    "WSDiscovery": Case("wsdiscovery_stop"),
    "zeroconf": Case("zeroconf_loop"),
}


def main() -> int:
    """Verify the entries that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("distributions", nargs="*")
    parser.add_argument("--index", action="store_true", help="only ask whether versions exist")
    options = parser.parse_args()
    asked = [each for each in KNOWN if each.distribution in (options.distributions or CASES)]
    wrong = 0
    for known in asked:
        for line in unknown_to_index(known) if options.index else verified(known):
            print(line, flush=True)
            wrong += line.startswith("WRONG")
    print(f"{len(asked)} entries, {wrong} wrong")
    return bool(wrong)


def unknown_to_index(known: KnownLeak) -> Iterator[str]:
    """Say which versions of an entry PyPI does not have, and which newer one it has."""
    url = f"https://pypi.org/pypi/{known.distribution}/json"
    with urllib.request.urlopen(url, timeout=60) as answer:
        body = json.load(answer)
    for version in filter(None, (known.since, known.fixed, known.seen)):
        if version not in body["releases"]:
            yield f"WRONG {known.distribution} {version} does not exist"
    newest = body["info"]["version"]
    if known.seen and known.seen != newest:
        yield f"{known.distribution} {newest} is newer than {known.seen}: does it still leak?"
    else:
        yield f"ok    {known.distribution}"


def verified(known: KnownLeak) -> Iterator[str]:
    """Run the versions of an entry, and say what was seen."""
    case = CASES[known.distribution]
    if case.python is not None and sys.version_info[:2] > case.python:
        wanted = ".".join(map(str, case.python))
        yield f"left out: {known.distribution} needs Python {wanted} or older"
        return
    for version in (known.since, known.fixed or known.seen):
        leaks = version != known.fixed
        try:
            sites = left_by(case, f"{known.distribution}=={version}")
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            yield f"WRONG {known.distribution} {version} can't be run: {error}"
            continue
        said = [site["hint"] or "" for site in sites]
        is_known = any(each.startswith("known: ") for each in said)
        found = is_known if leaks else not any(site["kind"] == known.kind for site in sites)
        state = "leaks" if leaks else "is clean"
        yield f"{'ok   ' if found else 'WRONG'} {known.distribution} {version} {state}: {said}"


def left_by(case: Case, requirement: str) -> list[dict[str, Any]]:
    """Return the sites that a program leaves in a version."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python"
        install = (str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check")
        subprocess.run((*install, requirement, *case.needs, *OURS), check=True, timeout=TIMEOUT_S)
        done = subprocess.run(
            [python, "-W", "ignore", HERE / "run.py", case.program],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            check=False,
            text=True,
            timeout=TIMEOUT_S,
        )
    if done.returncode != 0:
        raise ValueError(done.stderr)
    sites: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return sites


if __name__ == "__main__":
    sys.exit(main())
