"""Objects that a library or a standard library class created for its own use: close that."""

from __future__ import annotations

import sys

from otel_leaks.libraries import is_library, is_python, own_frame
from otel_leaks.model import Site
from otel_leaks.report.clusters import owner_of
from otel_leaks.report.hints.kinds import SAYS


def of_library(_site: Site, own: Site) -> str | None:
    """Recognize the package whose code they run, or that opened them."""
    library = _library_of(own)
    if library is None:
        return None
    return f"it belongs to {library}: close what you created with {library} when you are done"


def of_python(_site: Site, own: Site) -> str | None:
    """Recognize the standard library class that created them."""
    owner = _owner_in_python(own)
    return belongs_to(owner) if owner is not None else None


def belongs_to(owner: str) -> str:
    """Advise to end the object's creator."""
    return f"it belongs to {owner}: call its stop(), close() or shutdown() when you are done"


def _owner_in_python(site: Site) -> str | None:
    """Return the standard library class that created the objects of a site for its own use."""
    library = site.origin.library if site.origin is not None else None
    if library is None or not library.file or not is_python(library.file):
        return None
    if site.sample is not None and own_frame(site.sample.stack) is not None:
        return None
    owner = owner_of(library.function)
    return owner if owner.rpartition(".")[2].lstrip("_")[:1].isupper() else None


def _library_of(site: Site) -> str | None:
    """
    Return the package whose code the objects of *site* run, or that opened them.

    Returns:
        None if the application's own code is in their stack, if only the standard library
        is, and if it is not known what created them: an application that is itself
        installed looks like a library.
    """
    sample, origin = site.sample, site.origin
    if origin is None or (origin.library is None and is_library(origin.file)):
        return None
    if site.kind in SAYS:
        named = [package(origin.library.function)] if origin.library is not None else []
    elif sample is not None and own_frame(sample.stack) is None:
        named = [package(each.function) for each in sample.stack if is_library(each.file)]
    else:
        named = []
    return next((each for each in named if is_third_party(each)), None)


def package(function: str) -> str:
    """Return the package that a function is in."""
    return function.partition(".")[0]


def is_third_party(name: str) -> bool:
    """Return whether a name is that of a package outside the standard library."""
    return name.isidentifier() and name not in sys.stdlib_module_names
