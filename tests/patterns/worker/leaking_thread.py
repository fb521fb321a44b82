import queue
import threading


class Mailer:
    """Sends letters in the background, so that no request waits for it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.letters: queue.Queue[str] = queue.Queue()
        self.worker = threading.Thread(target=self.work, name="mailer", daemon=True)
        self.worker.start()

    def send(self, letter: str) -> None:
        self.letters.put(letter)

    def work(self) -> None:
        while True:
            letter = self.letters.get()
            self.sent.append(letter)
            self.letters.task_done()

    def close(self) -> None:
        """Wait until all letters are sent."""
        self.letters.join()


def test_letters_are_sent_before_it_closes() -> None:
    mailer = Mailer()
    mailer.send("Dear customer")
    mailer.close()
    assert mailer.sent == ["Dear customer"]
