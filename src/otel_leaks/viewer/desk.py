"""Combines receivers, store and page, on the loopback address only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from otel_leaks.viewer.arrivals import arrivals_of
from otel_leaks.viewer.otlp import Export
from otel_leaks.viewer.page import About, Action, Page
from otel_leaks.viewer.receiver import Receiver, application
from otel_leaks.viewer.rpc import RpcReceiver
from otel_leaks.viewer.store import Store

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GRPC_PORT", "HTTP_PORT", "Desk", "has_browser", "open_browser"]

HTTP_PORT = 4318
GRPC_PORT = 4317
"""The ports of OTLP, to which exporters send by default."""


class Desk:
    """
    The page and its receivers; a context manager.

    Args:
        title: The title of the page.
        port: The port for the page and OTLP/HTTP; 0 for any.
        grpc_port: The port for OTLP/gRPC; 0 for any, None for no gRPC.
        program: The program that runs under the page; empty to accept any sender.
        actions: Buttons of the page, by a name for their address.

    Raises:
        OSError: There is no port to listen on.
    """

    def __init__(
        self,
        title: str,
        *,
        port: int = HTTP_PORT,
        grpc_port: int | None = None,
        program: str = "",
        actions: Mapping[str, Action] | None = None,
    ) -> None:
        self.store = Store()
        self._title, self._program = title, program
        self._page = Page(self.store, self._about, actions)
        self._receiver = Receiver(application(self.receive, routes=self._page.routes), port)
        self._rpc = RpcReceiver(self.receive, grpc_port) if grpc_port is not None else None
        self._entered = ExitStack()
        self.http = self._receiver.endpoint
        """The endpoint for OTLP/HTTP."""
        self.grpc = self._rpc.endpoint if self._rpc is not None else ""
        """The endpoint for OTLP/gRPC, empty for none."""
        self.address = f"{self.http}/#token={self._page.token}"
        """The address of the page."""

    @property
    def ports(self) -> tuple[int, int | None]:
        """The actual ports, for HTTP and for gRPC."""
        return self._receiver.port, self._rpc.port if self._rpc is not None else None

    def receive(self, export: Export) -> None:
        """Add a received export to the store."""
        for arrival in arrivals_of(export):
            self.store.take(arrival)

    def __enter__(self) -> Self:
        self._entered.enter_context(self._receiver)
        if self._rpc is not None:
            self._entered.enter_context(self._rpc)
        return self

    def __exit__(self, *_: object) -> None:
        self._page.stopping = True
        self._entered.close()

    def _about(self) -> About:
        return About(self._title, self.http, self.grpc, self._program)


def has_browser(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a person could see a browser that is opened here."""
    if environ.get("CI"):
        return False
    if sys.platform in {"win32", "darwin"}:
        return True
    # Without a display, webbrowser would start a text browser over the output in the terminal.
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def open_browser(address: str) -> None:
    """Open a page if there is a browser, in a process that is not waited for."""
    # Some browsers run until they are closed, and signals may be blocked here.
    program = (
        "import signal, sys, webbrowser\n"
        "if hasattr(signal, 'pthread_sigmask'):\n"
        "    signal.pthread_sigmask(signal.SIG_SETMASK, [])\n"
        "webbrowser.open(sys.argv[1])"
    )
    subprocess.Popen(  # noqa: S603 - the text above
        [sys.executable, "-c", program, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
