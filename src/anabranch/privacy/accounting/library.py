"""dp-accounting, imported when it is first needed, with an error that names the extra."""

from __future__ import annotations

from types import ModuleType
from typing import NoReturn

from anabranch.errors import AnabranchError

__all__ = ["gaussian_module", "pld_modules", "rdp_modules"]


def pld_modules() -> ModuleType:
    """``dp_accounting.pld.pld_pmf``.

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed.
    """
    try:
        from dp_accounting.pld import pld_pmf
    except ImportError as error:
        _missing(error)
    module: ModuleType = pld_pmf
    return module


def rdp_modules() -> tuple[ModuleType, ModuleType]:
    """``dp_accounting`` and ``dp_accounting.rdp.rdp_privacy_accountant``.

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed.
    """
    try:
        import dp_accounting
        from dp_accounting.rdp import rdp_privacy_accountant
    except ImportError as error:
        _missing(error)
    return dp_accounting, rdp_privacy_accountant


def gaussian_module() -> ModuleType:
    """``dp_accounting.gaussian_mechanism``.

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed.
    """
    try:
        from dp_accounting import gaussian_mechanism
    except ImportError as error:
        _missing(error)
    module: ModuleType = gaussian_mechanism
    return module


def _missing(error: ImportError) -> NoReturn:
    raise AnabranchError(
        "AB-901",
        f"privacy accounting needs the package dp-accounting ({error}).",
        fix='install the extra: pip install "anabranch[privacy]".',
    ) from error
