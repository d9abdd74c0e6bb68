"""What a round showed of its clients: the input of the history, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.view import Codes, Column, Flags

__all__ = ["Shown"]


@dataclass(frozen=True, slots=True)
class Shown:
    """What one round showed of the clients whose fate became known in it; one entry for each.

    Attributes:
        clients: their numbers; a client that had two tasks stands here twice, in order.
        merged: its update is in the model.
        answered: it sent an answer (merged, late or refused), so its times are its own.
        seconds: from being asked to the answer; for a client that did not answer the time that
            it was waited for; NaN when not known.
        training_seconds: the part that it computed; NaN when not known.
        modelled_training, modelled_transfer: seconds that the model of its device gives for the
            same work, before any factor.
        joules: energy that it reported; NaN when it did not.
        modelled_joules: energy that the model gives.
        loss: its mean training loss; NaN when not visible.
        bytes_up: bytes of its answer; 0 without one.
        device: code of its device class.
        cut: it was given up before its time was over, because the round had enough.
    """

    clients: NDArray[np.int64]
    merged: Flags
    answered: Flags
    seconds: Column
    training_seconds: Column
    modelled_training: Column
    modelled_transfer: Column
    joules: Column
    modelled_joules: Column
    loss: Column
    bytes_up: Column
    device: Codes
    cut: Flags

    @staticmethod
    def of(
        clients: Sequence[int],
        merged: Sequence[bool],
        seconds: Sequence[float] | Column | None = None,
        **columns: object,
    ) -> Shown:
        """From what is known; every column left out is unknown, modelled times are one second.

        >>> Shown.of([4, 7], [True, False], [2.0, 9.0]).answered.tolist()
        [True, False]
        """
        count = len(clients)

        def column(name: str, default: float) -> Column:
            given = columns.pop(name, None)
            if given is None:
                return np.full(count, default)
            return np.asarray(given, np.float64).reshape(count)

        flags = np.asarray(merged, np.bool_).reshape(count)
        answered = columns.pop("answered", None)
        device, cut = columns.pop("device", None), columns.pop("cut", None)
        shown = Shown(
            np.asarray(clients, np.int64).reshape(count),
            flags,
            flags if answered is None else np.asarray(answered, np.bool_),
            np.full(count, np.nan) if seconds is None else np.asarray(seconds, np.float64),
            training_seconds=column("training_seconds", np.nan),
            modelled_training=column("modelled_training", 1.0),
            modelled_transfer=column("modelled_transfer", 0.0),
            joules=column("joules", np.nan),
            modelled_joules=column("modelled_joules", np.nan),
            loss=column("loss", np.nan),
            bytes_up=column("bytes_up", 0.0),
            device=np.zeros(count, np.int16) if device is None else np.asarray(device, np.int16),
            cut=np.zeros(count, np.bool_) if cut is None else np.asarray(cut, np.bool_),
        )
        if columns:
            raise TypeError(f"unknown columns: {', '.join(sorted(columns))}")
        return shown

    def rows(self, index: NDArray[np.int64]) -> Shown:
        """Some entries of every column."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})
