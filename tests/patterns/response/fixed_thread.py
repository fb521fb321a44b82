import queue
import threading


def price_of(shop: str) -> float:
    return {"north": 4.5, "south": 4.75}[shop]


def ask(shop: str, answers: queue.Queue[float]) -> None:
    answers.put(price_of(shop))


def first_price(shops: list[str]) -> float:
    """Ask all shops at once, and take the answer that comes first."""
    answers: queue.Queue[float] = queue.Queue(maxsize=len(shops))
    for shop in shops:
        threading.Thread(target=ask, args=(shop, answers), daemon=True).start()
    return answers.get()


def test_the_first_price_is_taken() -> None:
    assert first_price(["north", "south", "south"]) in {4.5, 4.75}
