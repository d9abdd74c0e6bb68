"""Checks of a client's data against a model, made before any training."""

from __future__ import annotations

from anabranch.data.federation import Examples
from anabranch.errors import AnabranchError
from anabranch.learners.losses import Loss

__all__ = ["check_data", "check_shape", "chunk_rows"]


def check_data(data: Examples, inputs: int, loss: Loss, client: str) -> None:
    """Refuse data that a model of ``inputs`` flattened inputs cannot learn from.

    Raises:
        AnabranchError: AB-306 no examples, AB-308 wrong number of inputs, AB-302 labels.
    """
    _check_count(data, client)
    if data.x[0].size != inputs:
        _refuse_shape(data.x.shape[1:], f"{inputs} inputs", client)
    loss.check_labels(data.y, client)


def check_shape(data: Examples, shape: tuple[int, ...], loss: Loss, client: str) -> None:
    """Refuse data whose examples do not have ``shape``.

    Raises:
        AnabranchError: AB-306 no examples, AB-308 wrong shape, AB-302 labels.
    """
    _check_count(data, client)
    if data.x.shape[1:] != shape:
        _refuse_shape(data.x.shape[1:], f"examples of shape {shape}", client)
    loss.check_labels(data.y, client)


def _check_count(data: Examples, client: str) -> None:
    if not len(data):
        raise AnabranchError(
            "AB-306",
            f"client {client!r} has no training examples.",
            fix="leave the client out, or give it at least one example.",
            kept="The client did not train.",
        )


def _refuse_shape(got: tuple[int, ...], wanted: str, client: str) -> None:
    raise AnabranchError(
        "AB-308",
        f"client {client!r} has examples of shape {tuple(got)}, the model reads {wanted}.",
        fix="give every client the same columns, or change the model's first layer.",
        kept="The client did not train.",
    )


def chunk_rows(example_size: int) -> int:
    """Rows predicted at once, so that memory stays bounded.

    >>> chunk_rows(784), chunk_rows(1), chunk_rows(10**9)
    (1337, 4096, 16)
    """
    return max(16, min(4096, (1 << 20) // max(example_size, 1)))
