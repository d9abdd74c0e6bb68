"""Fashion-MNIST as Debian packages it: 70,000 small pictures of clothes."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from anabranch.data.federation import Card, Examples
from anabranch.data.partition import IID
from anabranch.data.raw import unreadable
from anabranch.data.schema import DataSchema
from anabranch.data.sources.base import Pool, sha256_of
from anabranch.errors import AnabranchError
from anabranch.values import Value

__all__ = ["FashionMNIST"]

_FOLDER = "/usr/share/datasets/fashion-mnist"
_CHECKED = 10_000
"""Public pictures that are held out at most: as many as there are test pictures."""


class FashionMNIST(Value):
    """60,000 training and 10,000 test images of 28 x 28 pixels in ten classes."""

    shape: Literal["flat", "image"] = "flat"
    """Features as (784,) or as (1, 28, 28)."""
    folder: str = _FOLDER
    """Where the four .gz files are."""
    public: int = Field(default=0, ge=0, lt=60_000)
    """Training pictures, the last ones, that no client gets: to choose settings with."""
    holdout: Literal["test", "public"] = "test"
    """What the coordinator measures models on: the test pictures, or the public ones (the last
    10,000 of them at most), as a search for settings does, which must not see the test pictures."""

    @model_validator(mode="after")
    def _something_to_measure_on(self) -> FashionMNIST:
        if self.holdout == "public" and not self.public:
            raise ValueError("holdout 'public' needs public pictures; give public, such as 10000")
        return self

    def load(self, seed: int, schema: DataSchema | None = None) -> Pool:
        """Read the files; the test images are the federation's hold-out.

        Raises:
            AnabranchError: AB-207 when a file is not there, AB-208 when it is damaged.
        """
        packed = [self._read(f"{part}-{what}") for part in ("train", "t10k") for what in _NAMES]
        names = [f"{part}-{what}" for part in ("train", "t10k") for what in _NAMES]
        arrays = [_parse(data, name) for data, name in zip(packed, names, strict=True)]
        images, labels, test_images, test_labels = arrays
        kept = len(images) - self.public
        if self.holdout == "public":
            test_images, test_labels = images[kept:][-_CHECKED:], labels[kept:][-_CHECKED:]
        images, labels = images[:kept], labels[:kept]
        size = (1, 28, 28) if self.shape == "image" else (784,)
        return Pool(
            _card(sha256_of(packed)),
            images.reshape(-1, *size),
            labels.astype(np.int64),
            holdout=Examples(test_images.reshape(-1, *size), test_labels.astype(np.int64)),
            classes=10,
            scale=1 / 255,
            partition=IID(clients=100),
        )

    def _read(self, name: str) -> bytes:
        path = Path(self.folder) / f"{name}-ubyte.gz"
        try:
            return path.read_bytes()
        except OSError as error:
            raise AnabranchError(
                "AB-207",
                f"the data source 'fashion-mnist' finds no file {str(path)!r}.",
                fix="apt-get install dataset-fashion-mnist (Debian, Ubuntu), or set the source's "
                "option 'folder' to a folder with the four original .gz files.",
                kept="Nothing was read.",
            ) from error


_NAMES = ("images-idx3", "labels-idx1")


def _parse(packed: bytes, name: str) -> NDArray[np.uint8]:
    """The IDX format: two zero bytes, type 8 (bytes), number of axes, big-endian lengths, cells."""
    try:
        data = gzip.decompress(packed)
    except (OSError, EOFError) as error:
        raise unreadable(f"{name}-ubyte.gz", "is not a complete .gz file") from error
    axes = data[3] if len(data) > 3 and data[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(data, ">u4", axes, 4).tolist() if len(data) >= 4 + 4 * axes else []
    if not axes or len(data) != 4 + 4 * axes + math.prod(shape):
        raise unreadable(f"{name}-ubyte.gz", "is not a complete IDX file")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _card(sha256: str) -> Card:
    return Card(
        name="fashion-mnist",
        title="Fashion-MNIST, 28 x 28 pixels, ten kinds of clothes",
        origin="Zalando Research, github.com/zalandoresearch/fashion-mnist; "
        "Debian package dataset-fashion-mnist",
        licence="MIT",
        citation="Xiao, Rasul, Vollgraf: Fashion-MNIST: a Novel Image Dataset for Benchmarking "
        "Machine Learning Algorithms. arXiv:1708.07747, 2017.",
        partition="none",
        sha256=sha256,
        notes=("There are no natural clients; every division is synthetic.",),
    )
