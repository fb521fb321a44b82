import pytest
import pytest_asyncio
from aiohttp import web

pytestmark = pytest.mark.asyncio


async def hello(request):
    return web.Response(body=b"Hello")


@pytest_asyncio.fixture
async def cli(aiohttp_client):
    app = web.Application()
    app.router.add_get("/", hello)
    return await aiohttp_client(app)


async def test_hello(cli):
    response = await cli.get("/")
    assert await response.text() == "Hello"


async def test_hello_again(cli):
    assert (await cli.get("/")).status == 200


async def test_server(aiohttp_server):
    app = web.Application()
    server = await aiohttp_server(app)
    assert server.port
