from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("number", [1, 2])
def test_wider_fixture(pool, number):
    assert pool.submit(int, number).result() == number
