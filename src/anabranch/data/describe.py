"""How the data of a federation differ from client to client, in numbers and in a picture.

This looks into every client, so it is for simulation, where all data are at hand anyway.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anabranch.data.federation import Card, Federation, Ragged
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Description", "describe", "jensen_shannon", "picture", "total_variation"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Description:
    """A federation in numbers.

    Attributes:
        card: provenance.
        names: clients.
        train: training examples of each client, shape (clients,).
        test: test examples of each client, shape (clients,).
        holdout: examples held out at the coordinator.
        label_names: of the columns of ``labels``: classes, or quantile bins of a regression.
        labels: training examples by client and label, shape (clients, labels).
        missing: share of training rows whose indicator says "missing", by client and column,
            shape (clients, columns).
        missing_names: of the columns of ``missing``.
        total_variation: mean over clients, weighted by examples, of the total variation distance
            between the client's label distribution and the pooled one, from 0 (equal) to 1.
        jensen_shannon: the same with the Jensen-Shannon distance (square root of the divergence
            in bits), from 0 to 1.
    """

    card: Card | None
    names: tuple[str, ...]
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    holdout: int
    label_names: tuple[str, ...]
    labels: NDArray[np.int64]
    missing: Floats
    missing_names: tuple[str, ...]
    total_variation: float
    jensen_shannon: float

    def text(self, limit: int = 20) -> str:
        """A table of the first ``limit`` clients, and the heterogeneity."""
        width = max(len(name) for name in self.names)
        heads = " ".join(f"{name:>8.8}" for name in self.label_names)
        lines = [f"{'client':<{width}} {'train':>7} {'test':>6}  {heads}  missing"]
        for i, name in enumerate(self.names[:limit]):
            shares = self.labels[i] / max(int(self.train[i]), 1)
            cells = " ".join(f"{share:>8.0%}" for share in shares)
            gaps = f"{self.missing[i].mean():>7.0%}" if self.missing_names else "      -"
            lines.append(f"{name:<{width}} {self.train[i]:>7} {self.test[i]:>6}  {cells}  {gaps}")
        if len(self.names) > limit:
            lines.append(f"... and {len(self.names) - limit} more clients")
        lines.append(
            f"{len(self.names)} clients, {int(self.train.sum())} training and "
            f"{int(self.test.sum())} test examples, {self.holdout} held out at the coordinator."
        )
        lines.append(
            f"Label heterogeneity: total variation {self.total_variation:.3f}, "
            f"Jensen-Shannon {self.jensen_shannon:.3f} (0 equal, 1 disjoint)."
        )
        return "\n".join(lines)


def describe(federation: Federation) -> Description:
    """Counts, label distributions, missingness and heterogeneity of a federation."""
    train = federation.train
    bins, label_names = _binned(federation)
    clients = np.repeat(np.arange(len(train)), train.counts)
    flat = np.bincount(clients * len(label_names) + bins, minlength=len(train) * len(label_names))
    labels = flat.reshape(len(train), len(label_names)).astype(np.int64)
    missing, missing_names = _missing(federation)
    shares, weights = _shares(labels)
    pooled = labels.sum(axis=0) / max(int(labels.sum()), 1)
    return Description(
        card=federation.card,
        names=federation.names,
        train=train.counts,
        test=np.zeros(len(train), np.int64) if federation.test is None else federation.test.counts,
        holdout=0 if federation.holdout is None else len(federation.holdout),
        label_names=label_names,
        labels=labels,
        missing=missing,
        missing_names=missing_names,
        total_variation=float(weights @ total_variation(shares, pooled)),
        jensen_shannon=float(weights @ jensen_shannon(shares, pooled)),
    )


def total_variation(p: Floats, q: Floats) -> Floats:
    """Half the sum of absolute differences, over the last axis.

    >>> float(total_variation(np.array([1.0, 0.0]), np.array([0.25, 0.75])))
    0.75
    """
    return np.asarray(0.5 * np.abs(p - q).sum(axis=-1), np.float64)


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """Square root of the Jensen-Shannon divergence in bits, over the last axis (a metric).

    >>> float(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
    1.0
    """
    middle = (p + q) / 2
    divergence = (_kullback_leibler(p, middle) + _kullback_leibler(q, middle)) / 2
    return np.asarray(np.sqrt(np.clip(divergence, 0.0, 1.0)), np.float64)


def _kullback_leibler(p: Floats, q: Floats) -> Floats:
    p, q = np.broadcast_arrays(p, q)
    ratio = np.divide(p, q, out=np.ones(p.shape), where=(p > 0) & (q > 0))
    return np.asarray((p * np.log2(ratio)).sum(axis=-1), np.float64)


def _shares(labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
    sizes = labels.sum(axis=1)
    shares = labels / np.maximum(sizes, 1)[:, None]
    return shares, sizes / max(int(sizes.sum()), 1)


def _binned(federation: Federation) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    y = federation.train.y
    if federation.classes:
        names = federation.vocabulary or tuple(str(n) for n in range(federation.classes))
        if len(names) != federation.classes:
            names = tuple(str(n) for n in range(federation.classes))
        return y.astype(np.int64), names
    values = y.astype(np.float64)
    edges = np.quantile(values, [0.25, 0.5, 0.75]) if len(values) else np.zeros(3)
    names = ("quarter 1", "quarter 2", "quarter 3", "quarter 4")
    return np.searchsorted(edges, values, side="right").astype(np.int64), names


def _missing(federation: Federation) -> tuple[Floats, tuple[str, ...]]:
    places = [i for i, name in enumerate(federation.features) if name.endswith(" is missing")]
    names = tuple(federation.features[i].removesuffix(" is missing") for i in places)
    if not places:
        return np.zeros((len(federation), 0)), ()
    indicators = Ragged(federation.train.x[:, places], federation.train.y, federation.train.offsets)
    parts = [indicators.of(client).x for client in range(len(federation))]
    return np.array([p.mean(axis=0) if len(p) else np.zeros(len(places)) for p in parts]), names


def picture(description: Description, limit: int = 60) -> str:
    """An SVG of the label counts of the first ``limit`` clients: stacked bars, no other files.

    Raises:
        AnabranchError: AB-206 when matplotlib is not installed.
    """
    try:
        # The object interface draws without a display and leaves no global state behind.
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AnabranchError(
            "AB-206",
            "drawing needs matplotlib, which is not installed.",
            fix='pip install "anabranch[report]".',
        ) from error
    shown = min(limit, len(description.names))
    with rc_context({"svg.hashsalt": "anabranch", "svg.fonttype": "none"}):
        figure = Figure(figsize=(max(5.0, 0.16 * shown + 3), 3.2), layout="constrained")
        axes = figure.add_subplot()
        base = np.zeros(shown)
        for label in range(min(len(description.label_names), 12)):
            counts = description.labels[:shown, label]
            axes.bar(range(shown), counts, bottom=base, label=description.label_names[label])
            base = base + counts
        _dress(axes, description, shown)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _dress(axes: Axes, description: Description, shown: int) -> None:
    few = shown <= 20
    names = description.names[:shown] if few else ()
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_ylabel("training examples")
    axes.set_xlabel("clients" if few else f"{shown} of {len(description.names)} clients")
    axes.legend(title="label", fontsize="small", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
