"""The fingerprint of a site: the same in every process, on every host."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from otel_leaks.model.words import Kind

__all__ = ["FINGERPRINT_SCHEME", "fingerprint", "scheme_of"]

FINGERPRINT_SCHEME = 1
"""The version of the rules of ``fingerprint``. When you change them, write its number before the
digits, ``2:0123456789ab``: old ignores and baselines then raise errors instead of silently matching
nothing."""


def scheme_of(text: str) -> int:
    """Return the scheme of a fingerprint, or of a pattern for some: 1 if none is written."""
    found = re.match(r"([0-9]{1,9}):", text)
    return int(found[1]) if found else 1


@lru_cache(maxsize=4096)
def fingerprint(kind: Kind, functions: tuple[str, ...]) -> str:
    """
    Identify a site by what it is, not by where it was seen.

    Args:
        kind: The kind of the site's objects.
        functions: Qualified names of its functions, outermost first.

    Returns:
        12 hex digits: the same in every process and on every host, and after an
        edit that moves lines but renames nothing.
    """
    text = "\n".join((kind, *functions))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
