"""Arrays that a user gives: numbers of one kind and shape, or a clear refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from anabranch.errors import AnabranchError

__all__ = ["Pair", "clean_pair", "count_classes", "pairs_of", "require_alike"]

Array = NDArray[np.generic]
Pair = tuple[Array, Array]
"""Features and targets of one client."""

_PLAIN_CLASSES = 1000  # as many classes need no further sign that they are classes


def pairs_of(clients: object) -> dict[str, Pair]:
    """Clean arrays by client.

    Raises:
        AnabranchError: AB-201 there are none, AB-225 not a mapping to pairs of arrays of numbers,
            AB-202 lengths differ, AB-204 values that are not finite.
    """
    if not clients:
        raise AnabranchError("AB-201", "no clients were given.", fix="give at least one.")
    if not isinstance(clients, Mapping):
        raise _no_arrays("clients are not a mapping from names to arrays")
    pairs = {str(name): clean_pair(f"client {name!r}", pair) for name, pair in clients.items()}
    if len(pairs) < len(clients):
        raise _no_arrays("two clients have the same name as text")
    return pairs


def clean_pair(who: str, pair: object) -> Pair:
    """Features as float32 (or integers), targets as int64 classes or float32 values.

    Args:
        who: whose they are, for messages ("client 'va'").
        pair: features and targets.

    Raises:
        AnabranchError: AB-225 not two arrays of numbers, AB-202 lengths differ or targets are not
            one a row, AB-204 values that are not finite.
    """
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise _no_arrays(f"{who}: not a pair of features and targets")
    x, y = _numbers(who, "features", pair[0]), _numbers(who, "targets", pair[1])
    if len(x) != len(y):
        raise AnabranchError(
            "AB-202",
            f"{who} has {len(x)} rows of features and {len(y)} targets.",
            fix="give one target for each row.",
        )
    if y.ndim > 1:
        raise AnabranchError(
            "AB-202",
            f"{who} has targets of shape {y.shape}: not one number for each row.",
            fix="give class numbers, not one-hot rows; of a single column give y[:, 0].",
        )
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
        x = x.astype(np.int64 if x.dtype.kind in "iu" else np.float32)
        y = y.astype(np.float32 if y.dtype.kind == "f" else np.int64)
    _require_finite(who, {"features": x, "targets": y})
    return x, y


def require_alike(pairs: Mapping[str, Pair]) -> None:
    """Refuse pairs that one model cannot learn from.

    Args:
        pairs: by whose they are ("client 'va'"); the first one says what is wanted.

    Raises:
        AnabranchError: AB-203 examples of another shape, AB-226 classes and real-valued targets
            side by side.
    """
    filled = {who: pair for who, pair in pairs.items() if len(pair[1])}  # nothing has no kind
    if not filled:
        return
    (first, (x, y)), *rest = filled.items()
    for who, (other_x, other_y) in rest:
        if other_x.shape[1:] != x.shape[1:]:
            raise AnabranchError(
                "AB-203",
                f"{who} has examples of shape {other_x.shape[1:]}, {first} of {x.shape[1:]}.",
                fix="give every client the same columns in the same order.",
            )
        if other_y.dtype.kind != y.dtype.kind:
            raise AnabranchError(
                "AB-226",
                f"{who} has {_kind(other_y)}, {first} has {_kind(y)}.",
                fix="give integers everywhere for classification, floating numbers everywhere for "
                "regression.",
            )


def count_classes(pairs: Mapping[str, Pair]) -> int:
    """Number of classes, 0 for regression.

    Raises:
        AnabranchError: AB-227 integers that do not number classes from 0.
    """
    rows, largest = 0, -1
    for who, (_, y) in pairs.items():
        if len(y) and y.dtype.kind != "i":
            return 0
        rows += len(y)
        largest = max(largest, int(y.max(initial=-1)))
        if y.min(initial=0) < 0:
            raise _no_classes(f"{who} has a negative label")
    if largest >= max(rows, _PLAIN_CLASSES):
        raise _no_classes(f"the largest label would make more classes than the {rows} examples")
    return 1 + largest


def _numbers(who: str, what: str, given: object) -> Array:
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of different length, a GPU tensor
        raise _no_arrays(f"{who}: {what} cannot be made an array") from error
    if array.dtype.kind not in "biuf":
        raise _no_arrays(f"{who}: {what} are not numbers (NumPy type {array.dtype})")
    if array.ndim == 0:
        raise _no_arrays(f"{who}: {what} are a single number, not one row an example")
    return array


def _require_finite(who: str, arrays: Mapping[str, Array]) -> None:
    for what, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise AnabranchError(
                "AB-204",
                f"{who}: {what} contain a missing or infinite value in row {row}.",
                fix="impute or drop it (a plan with a data schema imputes from federated "
                "statistics).",
            )


def _kind(y: Array) -> str:
    return "real-valued targets" if y.dtype.kind == "f" else "class numbers (integers)"


def _no_arrays(message: str) -> AnabranchError:
    return AnabranchError(
        "AB-225",
        f"{message}.",
        fix='give clients={"name": (X, y), ...} with arrays of numbers: X has one row an example, '
        "y one number an example; text must be coded first (a data schema does it).",
    )


def _no_classes(message: str) -> AnabranchError:
    return AnabranchError(
        "AB-227",
        f"{message}; labels number the classes from 0.",
        fix="number the classes 0, 1, 2, ... (np.unique(y, return_inverse=True) over all clients), "
        "or give floating targets for regression.",
    )
