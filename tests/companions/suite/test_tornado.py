from tornado.testing import AsyncHTTPTestCase, AsyncTestCase, gen_test
from tornado.web import Application, RequestHandler


class Hello(RequestHandler):
    def get(self):
        self.write("hello")


class HelloTest(AsyncHTTPTestCase):
    def get_app(self):
        return Application([("/", Hello)])

    def test_hello(self):
        assert self.fetch("/").body == b"hello"


class CoroutineTest(AsyncTestCase):
    @gen_test
    async def test_coroutine(self):
        pass
