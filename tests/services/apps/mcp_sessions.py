"""An MCP server over streamable HTTP, whose clients keep their sessions."""

from __future__ import annotations

import asyncio

from mcp.server import MCPServer

server = MCPServer("shop")


@server.tool()  # type: ignore[untyped-decorator]
async def price(item: str) -> str:
    """Return the price of an item."""
    await asyncio.sleep(0.02)
    return f"{item}: 1"


app = server.streamable_http_app()
