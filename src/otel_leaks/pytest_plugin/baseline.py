"""The baseline: a file with the fingerprints of known leaks, which a team fixes over time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_leaks.errors import BaselineError, FingerprintSchemeError
from otel_leaks.pytest_plugin.usage import usage

if TYPE_CHECKING:
    from otel_leaks.testing.report import Report


class Baseline:
    """The known leaks of a baseline file, by fingerprint."""

    def __init__(self, file: str | None, *, update: bool) -> None:
        if update and file is None:
            raise pytest.UsageError("--leaks-baseline-update needs --leaks-baseline FILE")
        self._file = Path(file) if file is not None else None
        self._update = update
        self.known: dict[str, Any] = {}
        self.seen: dict[str, Any] = {}
        self.known_seen: set[str] = set()
        if self._file is not None and not update:
            self.known = usage("--leaks-baseline", self._read)

    def _read(self) -> dict[str, Any]:
        assert self._file is not None
        try:
            body = json.loads(self._file.read_text(encoding="utf-8"))
        except OSError as error:
            raise BaselineError(
                f"can't read {self._file}: {error.strerror}; write it with --leaks-baseline-update"
            ) from None
        except RecursionError:
            raise BaselineError(f"can't read {self._file}: it is nested too deeply") from None
        except ValueError as error:  # Also invalid UTF-8, and integers with too many digits.
            raise BaselineError(
                f"{self._file} is not valid JSON: {error}; write it with --leaks-baseline-update"
            ) from None
        fingerprints = body.get("fingerprints") if isinstance(body, dict) else None
        if not isinstance(fingerprints, dict):
            raise BaselineError(
                f'{self._file} must be an object with "fingerprints"; '
                "write it with --leaks-baseline-update"
            )
        self._check_versions(body)
        return fingerprints

    def _check_versions(self, body: dict[str, Any]) -> None:
        """Reject a file whose fingerprints would match nothing; no version means version 1."""
        from otel_leaks.model import FINGERPRINT_SCHEME
        from otel_leaks.report.as_json import SCHEMAS

        schema, scheme = body.get("schema", 1), body.get("fingerprint_scheme", 1)
        if not (type(scheme) is int and scheme == FINGERPRINT_SCHEME):
            raise FingerprintSchemeError(
                f"{self._file} has fingerprints of scheme {scheme!r}, which would match nothing: "
                f"this version of otel-leaks computes those of scheme {FINGERPRINT_SCHEME}; "
                "write it again with --leaks-baseline-update"
            )
        if not (type(schema) is int and 1 <= schema <= SCHEMAS["baseline"]):
            raise BaselineError(
                f"{self._file} must be of schema {SCHEMAS['baseline']} or older, got {schema!r}; "
                "update otel-leaks, or write it again with --leaks-baseline-update"
            )

    def without_known(self, report: Report) -> Report:
        """Return *report* without the known leaks; while the file is written, all are known."""
        from otel_leaks.testing.report import Report

        if self._file is None:
            return report
        for site in report:
            self.seen[site.fingerprint] = {"kind": site.kind, "function": site.function}
            if site.fingerprint in self.known:
                self.known_seen.add(site.fingerprint)
        if self._update:
            return Report((), report.hidden)
        new = tuple(site for site in report if site.fingerprint not in self.known)
        return Report(new, report.hidden)

    def save(self) -> None:
        """Write the file, if ``--leaks-baseline-update`` is given."""
        if self._file is not None and self._update:
            from otel_leaks.report.as_json import document

            body = document("baseline", {"fingerprints": dict(sorted(self.seen.items()))})
            self._file.write_text(f"{body}\n", encoding="utf-8")

    def lines(self) -> Iterable[str]:
        """Yield lines that report what was written, known or stale."""
        if self._file is None:
            return
        if self._update:
            yield f"leaks: {len(self.seen)} fingerprints written to {self._file}"
            return
        if self.known_seen:
            yield f"leaks: {len(self.known_seen)} known leaks of {self._file} were ignored"
        for mark, what in self.known.items():
            if mark not in self.known_seen:
                function = what.get("function", "?") if isinstance(what, dict) else "?"
                yield f"leaks: {mark} ({function}) is stale, remove it from {self._file}"
