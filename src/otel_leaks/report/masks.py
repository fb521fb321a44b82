"""
Names without what may be a secret: of threads, pools, spans and routes.

Applications put anything into names: a tenant, an e-mail address, a URL with its
password. Code is known to be harmless, names are not. So a name leaves the process word by
word: a word stays if it looks like one that a programmer would write; all else becomes ``*``.

The rule errs on the side of masking. It cannot distinguish a password that is an ordinary word
from an ordinary word.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

from otel_leaks.report.texts import head, plain

__all__ = ["MASK", "MAX_CHARS", "masked", "masked_path"]

MASK = "*"
MAX_CHARS = 200
"""Maximum length of a masked name."""
READ_CHARS = 400
"""Characters of a name that are read; the rest is omitted."""
MAX_WORD = 64
"""Characters of a word, including underscores."""
MAX_PART = 16
"""Letters of a word between underscores, or between capitals."""
MAX_DIGITS = 6
"""Digits at the end of a word that may be a number; more are an id."""

# Known words in capitals, or of an unusual shape. Any other may be a token.
_KNOWN = frozenset(
    """
    GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH QUERY PROPFIND
    SELECT INSERT UPDATE MERGE COPY CALL BEGIN COMMIT ROLLBACK CREATE DROP ALTER SET DEL
    LPUSH RPUSH LPOP RPOP BLPOP BRPOP HGET HSET XADD XREAD PUBLISH SUBSCRIBE PING MULTI EXEC
    HTTP HTTPS TCP UDP TLS SSL SSH FTP DNS WS RPC GRPC gRPC AMQP MQTT SMTP IMAP LDAP OTLP
    IO DB API UI ID MQ CPU GPU GC SQL SDK CLI TTL LRU UTC PDF CSV XML JSON JWT
    AWS GCP SQS SNS AnyIO mqtt jwt sqs wsgi
    """.split()  # noqa: SIM905 - a hundred words in a list would take a hundred lines
)
# Pairs of letters that occur in (almost) no word of Python's documentation and standard library.
_NEVER = {
    "b": "qx",
    "c": "jz",
    "d": "z",
    "f": "jz",
    "g": "jkqx",
    "h": "gjqwxz",
    "i": "jwy",
    "j": "bdfghjklmnqtvwxz",
    "k": "jxz",
    "l": "qz",
    "m": "jqxz",
    "o": "q",
    "p": "jz",
    "q": "bcefghijkmopqtvwxyz",
    "r": "qz",
    "s": "z",
    "t": "j",
    "u": "jkqwyz",
    "v": "hjkquz",
    "w": "jxyz",
    "x": "gjq",
    "y": "jkqy",
    "z": "bcghjkmnqvwxz",
}
_UNREADABLE = re.compile(r"[^aeiouy]{6}|(.)\1\1|[aeiou]{5}")
_HEX = frozenset("abcdef")
_VOWELS = frozenset("aeiouy")

_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PART = re.compile(r"(?P<letters>[A-Za-z]*)(?P<digits>[0-9]*)")
_SEGMENTS = re.compile(r"([/\\()\[\]{}<>,;|?=])")
_PARTS = re.compile(r"\w+|.", re.DOTALL)
_URL = re.compile(r"(?P<scheme>[a-z]{2,10}://)")
# UUIDs, MAC addresses and IPv6 addresses: their groups may look like words.
_GROUPS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
    r"|[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}"
    r"|(?:[0-9A-Fa-f]{0,4}:){2,}[0-9A-Fa-f.:]*"
    r")"
)
_PLAIN = re.compile(r"(?:[A-Z]?[a-z]{2,}[-.:_*'\"]+)*")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}={1,2}")
_HOST = re.compile(
    r"[A-Za-z0-9-]\.(?:[a-z]{2}|com|net|org|info|biz|dev|app|cloud|edu|gov|mil|int|name|online|"
    r"site|shop|tech|xyz|local|localdomain|internal|intranet|corp|home|lan|test|example|invalid|"
    r"onion|arpa)(?![A-Za-z0-9_-]|\.[A-Za-z0-9])|(?<![A-Za-z])localhost(?![A-Za-z])"
)
_VALUE = re.compile(r"(?<=[?=]).+")
_MASKS = re.compile(r"\*(?:[\s_.:*-]*\*)+")

# Characters that a word may be next to. A word next to any other character is not read.
_JOINS = frozenset("-.:*'\"")
_BOUNDS = frozenset("/()[]{}<>,;|?=")


def masked(name: str) -> str:
    """
    Return the name of a thread or a pool without what may be a secret.

    Returns:
        At most 200 printable characters: ``kafka-producer-*``, ``Thread-* (serve_forever)``,
        ``mail *``.
    """
    return _masked(plain(name)[: READ_CHARS + 1], "/\\")


def masked_path(name: str) -> str:
    """Return the name of a span, or a route, without what may be a secret; paths may stay."""
    return _masked(plain(name)[: READ_CHARS + 1], "\\")


@lru_cache(maxsize=1024)
def _masked(name: str, ends: str) -> str:
    chunks = name.split()
    if len(name) > READ_CHARS:
        # The last one may be part of a token, and part of a token may look like a word.
        chunks[-1:] = [MASK]
    said = " ".join(_chunk(each, ends) for each in chunks)
    return head(_MASKS.sub(MASK, said), MAX_CHARS)


def _chunk(chunk: str, ends: str) -> str:
    """Mask the text between two spaces."""
    url = _URL.match(chunk)
    if url is not None:
        return url["scheme"] + MASK
    if "://" in chunk or "@" in chunk or _HOST.search(chunk) is not None:
        return MASK
    chunk = _VALUE.sub(MASK, _BASE64.sub(MASK, _GROUPS.sub(MASK, chunk)))
    segments = [each for each in _SEGMENTS.split(chunk) if each]
    end = next((i for i, each in enumerate(segments) if each in ends), len(segments))
    # A path that is not a route: nothing after its first separator is read.
    rest = (segments[end], MASK) if end < len(segments) else ()
    read = [(each, False) if each in _BOUNDS else _segment(each) for each in segments[:end]]
    if any(is_odd for _, is_odd in read):
        # Base64 contains slashes: text next to one may belong to the same token.
        read = [
            (said if is_odd or said.islower() or each in _BOUNDS else MASK, is_odd)
            for each, (said, is_odd) in zip(segments, read, strict=False)
        ]
    return "".join((*(said for said, _ in read), *rest))


def _segment(segment: str) -> tuple[str, bool]:
    """Mask a segment from its first odd word on; return whether it has one."""
    said: list[str] = []
    for part in _PARTS.findall(segment):
        word = part if part in _JOINS else _word(part)
        if word is None:
            # Words before it stay if they are plain; otherwise they may be part of it.
            is_plain = _PLAIN.fullmatch("".join(said)) is not None
            return "".join((*said, MASK)) if is_plain else MASK, True
        said.append(word)
    return "".join(said), False


def _word(word: str) -> str | None:
    """Return a word with its numbers masked, None if it may be a secret."""
    if len(word) > MAX_WORD or not word.isascii():
        return None
    said = []
    for part in word.split("_"):
        match = _PART.fullmatch(part)
        if match is None:
            return None
        letters, digits = match["letters"], match["digits"]
        if letters and digits:
            is_hex = len(part) >= 4 and _HEX.issuperset(letters.lower())
            if is_hex or len(digits) > MAX_DIGITS:
                return None
        if letters and not _is_written(letters):
            return None
        said.append(letters + (MASK if digits else ""))
    return "_".join(said)


def _is_written(letters: str) -> bool:
    """Return whether letters look like a word, or like words in camel case."""
    if letters in _KNOWN or len(letters) == 1:
        return True
    humps = _HUMP.findall(letters)
    capitals = [each for each in humps if each.isupper()]
    words = [each.lower() for each in humps if not each.isupper()]
    return (
        len(humps) <= 8
        and _UNREADABLE.search(letters.lower()) is None
        and len(capitals) <= 1
        and all(len(each) <= 4 for each in capitals)
        and bool(words)
        and all(map(_is_word, words))
        # One hump of two letters is "On" or "By"; several are a token.
        and (len(humps) == 1 or sum(len(each) == 2 for each in words) <= 1)
        and (len(humps) == 1 or all(len(each) > 1 for each in words))
        # A short word next to capitals is just as likely part of a token.
        and (not capitals or any(len(each) > 3 for each in words))
    )


def _is_word(word: str) -> bool:
    """Return whether letters in lower case can be read as a word."""
    if len(word) > MAX_PART or (len(word) >= 6 and _HEX.issuperset(word)):
        return False
    if any(second in _NEVER.get(first, "") for first, second in pairwise(word)):
        return False
    vowels = sum(each in _VOWELS for each in word)
    return _UNREADABLE.search(word) is None and (len(word) < 6 or vowels * 5 >= len(word))
