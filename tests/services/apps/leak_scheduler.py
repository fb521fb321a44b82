"""Flask under gunicorn; a scheduler for each import, which nobody shuts down."""

from __future__ import annotations

from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask

app = Flask(__name__)


def refresh(name: str) -> None:
    print(name)


@app.post("/watches/<name>")  # type: ignore[untyped-decorator]
def watches(name: str) -> dict[str, str]:
    scheduler = BackgroundScheduler()
    scheduler.add_job(refresh, "interval", seconds=3600, args=[name])
    scheduler.start()  # The leak.
    return {"watching": name}
