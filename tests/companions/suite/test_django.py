import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="for tests",
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django.contrib.contenttypes"],
        ALLOWED_HOSTS=["*"],
    )
    django.setup()

from django.http import HttpResponse
from django.test import AsyncClient, Client, SimpleTestCase
from django.urls import path


def view(request):
    return HttpResponse("sync")


async def async_view(request):
    return HttpResponse("async")


urlpatterns = [path("sync", view), path("async", async_view)]


class ViewsTest(SimpleTestCase):
    def test_sync(self):
        assert Client().get("/sync").content == b"sync"

    def test_async_view_of_a_sync_client(self):
        assert Client().get("/async").content == b"async"

    async def test_async_client(self):
        assert (await AsyncClient().get("/sync")).content == b"sync"
