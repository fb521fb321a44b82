"""Flask under gunicorn with 300 threads, most of them busy."""

from __future__ import annotations

import time

from flask import Flask

app = Flask("gthread")


@app.get("/slow/<float:seconds>")  # type: ignore[untyped-decorator]
def slow(seconds: float) -> dict[str, float]:
    time.sleep(seconds)
    return {"slept": seconds}
