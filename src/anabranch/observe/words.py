"""Numbers as people read them: bytes, durations, shares, metrics, each with its unit."""

from __future__ import annotations

import math

__all__ = [
    "bytes_in_words",
    "metric_in_words",
    "metric_name",
    "number_in_words",
    "seconds_in_words",
    "share_in_words",
    "signed",
]

_ACRONYMS = frozenset({"auc", "rmse", "mse", "mae"})


def bytes_in_words(count: float) -> str:
    """Decimal units, as networks are sold.

    >>> bytes_in_words(999), bytes_in_words(1_234_567)
    ('999 B', '1.2 MB')
    """
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def seconds_in_words(seconds: float) -> str:
    """Milliseconds, seconds, minutes or hours.

    >>> seconds_in_words(0.0123), seconds_in_words(4.2), seconds_in_words(75)
    ('12 ms', '4.2 s', '1 min 15 s')
    """
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def share_in_words(share: float | None) -> str:
    """A fraction as per cent.

    >>> share_in_words(0.975), share_in_words(None)
    ('97.5 %', 'not measured')
    """
    return "not measured" if share is None else f"{100 * share:.1f} %"


def metric_in_words(value: float | None) -> str:
    """A metric with four significant decimals; a dash when there is none.

    >>> metric_in_words(0.81234), metric_in_words(None), metric_in_words(1234.5)
    ('0.8123', '–', '1.234e+03')
    """
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3e}"


def number_in_words(value: float | None) -> str:
    """A measured number of any unit: whole numbers whole, others with four digits.

    >>> number_in_words(180.0), number_in_words(0.97512), number_in_words(1_500_000.0)
    ('180', '0.9751', '1,500,000')
    """
    if value is None:
        return "nothing"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def signed(value: float | None) -> str:
    """A difference with its sign.

    >>> signed(0.05), signed(-0.004)
    ('+0.0500', '-0.0040')
    """
    return "–" if value is None else f"{value:+.4f}"


def metric_name(name: str) -> str:
    """A metric's name in a sentence.

    >>> metric_name("auc"), metric_name("log_loss")
    ('AUC', 'log loss')
    """
    return name.upper() if name in _ACRONYMS else name.replace("_", " ")
