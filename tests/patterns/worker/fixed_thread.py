import queue
import threading


class Mailer:
    """Sends letters in the background, so that no request waits for it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.letters: queue.Queue[str | None] = queue.Queue()
        self.worker = threading.Thread(target=self.work, name="mailer", daemon=True)
        self.worker.start()

    def send(self, letter: str) -> None:
        self.letters.put(letter)

    def work(self) -> None:
        while (letter := self.letters.get()) is not None:
            self.sent.append(letter)

    def close(self) -> None:
        """Wait until all letters are sent, and end the worker."""
        self.letters.put(None)
        self.worker.join()


def test_letters_are_sent_before_it_closes() -> None:
    mailer = Mailer()
    mailer.send("Dear customer")
    mailer.close()
    assert mailer.sent == ["Dear customer"]
