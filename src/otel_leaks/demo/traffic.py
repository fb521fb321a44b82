"""The shop's customers."""

from __future__ import annotations

import http.client
import json
import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ORDERS_A_SECOND", "Traffic"]

ORDERS_A_SECOND = 10
_TIMEOUT_S = 10.0


class Traffic:
    """
    Places orders and checks their status, from a thread; a context manager.

    Args:
        port: The port of the shop, on 127.0.0.1.
        orders_a_second: Orders per second, > 0.
        receipts: Whether to request a receipt with every tenth order.
    """

    def __init__(
        self, port: int, orders_a_second: float = ORDERS_A_SECOND, *, receipts: bool = False
    ) -> None:
        self._receipts = receipts
        self._port = port
        self._pause_s = 1 / orders_a_second
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="otel-leaks-demo-traffic", daemon=True
        )
        self.answered = 0
        """Number of orders that were answered with 201 so far."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join(_TIMEOUT_S)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        try:
            while not self._stopping.wait(self._pause_s):
                order = _ask(connection, "POST", "/orders", 201)["order"]
                self.answered += 1
                _ask(connection, "GET", f"/orders/{order}", 200)
                if self._receipts and self.answered % 10 == 0:
                    _ask(connection, "POST", "/receipts", 202)
        except (OSError, http.client.HTTPException):
            # The shop is gone; its parent learns that from its output.
            pass
        finally:
            connection.close()


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, status: int
) -> dict[str, int]:
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    if response.status != status:
        raise http.client.HTTPException(f"{method} {path}: {response.status}")
    answer: dict[str, int] = json.loads(body)
    return answer
