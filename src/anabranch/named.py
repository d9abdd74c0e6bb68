"""Callables by name: ``module:name``, never code and never pickles.

A plan names what is installed where it runs. Whatever is named here was put there by the owner of
the machine; nothing is downloaded and nothing is evaluated.
"""

from __future__ import annotations

from importlib import import_module

from anabranch.errors import AnabranchError

__all__ = ["load_named"]


def load_named(name: str) -> object:
    """The object that ``module:attribute`` names.

    Args:
        name: an importable module, a colon, and a name inside it (dots go further in).

    Raises:
        AnabranchError: AB-421 when the form is wrong, the module cannot be imported, or it has no
            such name.

    >>> load_named("math:sqrt")(9.0)
    3.0
    """
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise _not_found(name, "it is not of the form 'module:name'")
    try:
        found: object = import_module(module_name)
    except Exception as error:  # whatever the module's own code raises is told to its author
        raise _not_found(
            name, f"importing {module_name!r} failed ({type(error).__name__}: {error})"
        ) from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise _not_found(name, f"{module_name!r} has no {path!r}") from error
    return found


def _not_found(name: str, reason: str) -> AnabranchError:
    return AnabranchError(
        "AB-421",
        f"{name!r} cannot be used: {reason}.",
        fix="name something that is installed here, as 'module:name'; check the spelling and that "
        "the module imports in this environment.",
    )
