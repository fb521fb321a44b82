"""Flask under gunicorn; each call starts a consumer in a thread, and nobody stops it."""

from __future__ import annotations

import queue
import threading

from flask import Flask

app = Flask("leak_thread_per_call")


class Consumer:
    def __init__(self) -> None:
        self.jobs: queue.Queue[str] = queue.Queue()
        self.thread = threading.Thread(target=self.consume, daemon=True)

    def consume(self) -> None:
        while True:
            self.jobs.get()


@app.post("/imports/<name>")  # type: ignore[untyped-decorator]
def imports(name: str) -> dict[str, str]:
    consumer = Consumer()
    consumer.thread.start()  # The leak.
    consumer.jobs.put(name)
    return {"import": name}
