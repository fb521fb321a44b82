"""
The messages between the command and the inspected process: JSON, preceded by its length.

Both sides limit what they read, and trust none of it.
"""

from __future__ import annotations

import json
from typing import Any, Protocol, final

__all__ = ["MAX_ANSWER_BYTES", "MAX_REQUEST_BYTES", "VERSION", "Socket", "Wire", "WireError"]

VERSION = 1
"""Version of the messages: the two sides may come from different installations."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_REQUEST_BYTES = 256 * 1024

# Not json.dumps: the process may have replaced it.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class WireError(ValueError):
    """The data received is no message, or is too long."""


class Socket(Protocol):
    """The methods needed of a socket, which ``_socket.socket`` has as well."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of *data*."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive at most *size* bytes."""


@final
class Wire:
    """
    One end of a connection.

    Args:
        socket: A connected socket.
        most: Limit of the length of a received message, bytes.
    """

    def __init__(self, socket: Socket, most: int) -> None:
        self._socket = socket
        self._most = most

    def send(self, message: dict[str, Any]) -> None:
        """
        Send a message.

        Raises:
            OSError: The other end is gone.
        """
        data = _encode(message).encode()
        self._socket.sendall(len(data).to_bytes(4, "big") + data)

    def receive(self) -> dict[str, Any] | None:
        """
        Return the next message, None when there are no more.

        Raises:
            WireError: The data is no message.
            OSError: The connection broke, or timed out.
        """
        head = self._exactly(4)
        if head is None:
            return None
        size = int.from_bytes(head, "big")
        if size > self._most:
            raise WireError(f"a message of {size} bytes, more than the {self._most} allowed")
        data = self._exactly(size)
        if data is None:
            return None
        try:
            message = _decode(data.decode())
        except (ValueError, RecursionError) as error:
            raise WireError(f"not JSON: {type(error).__name__}") from None
        if not isinstance(message, dict):
            raise WireError("not a JSON object")
        return message

    def _exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            some = self._socket.recv(min(size - len(data), 1 << 20))
            if not some:
                return None
            data += some
        return bytes(data)
