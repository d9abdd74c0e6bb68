"""Arrays that users give in Python or as .npz: what fits, and what is refused with which code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anabranch.data import Column, DataSchema, Federation, Target, check_site
from anabranch.data.own import read_folder
from anabranch.errors import AnabranchError

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])


def code_of(clients: object, **more: object) -> str:
    with pytest.raises(AnabranchError) as caught:
        Federation.from_arrays(clients, **more)  # type: ignore[arg-type]
    return caught.value.code


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ((X, Y - 1), "AB-227"),
        ((X, Y * 10**9), "AB-227"),
        ((X, Y * 1.0), "AB-226"),
        ((X, Y[:, None]), "AB-202"),
        ((X, np.eye(2, dtype=int)[Y]), "AB-202"),
        ((X, Y[:5]), "AB-202"),
        ((X[:, :1], Y), "AB-203"),
        ((np.where(X > 3, np.nan, X), Y), "AB-204"),
        ((np.where(X > 3, np.inf, X), Y), "AB-204"),
        ((X * 1e300, Y), "AB-204"),  # more than a 32-bit number holds
        ((X.astype(str), Y), "AB-225"),
        ((X, np.where(Y, "ill", "well")), "AB-225"),
        ((X.astype(object), Y), "AB-225"),
        (([[1.0], [1.0, 2.0]], [0, 1]), "AB-225"),
        ((X, Y, Y), "AB-225"),
        ((1.0, 2), "AB-225"),
        (None, "AB-225"),
    ],
)
def test_what_one_model_cannot_learn_from_is_refused(other: object, code: str) -> None:
    assert code_of({"a": (X, Y), "b": other}) == code


def test_what_is_no_mapping_is_refused() -> None:
    assert code_of({}) == "AB-201"
    assert code_of([(X, Y), (X, Y)]) == "AB-225"
    assert code_of({1: (X, Y), "1": (X, Y)}) == "AB-225"


def test_test_sets_and_hold_out_must_fit_the_clients() -> None:
    clients = {"a": (X, Y)}
    assert code_of(clients, test={"b": (X, Y)}) == "AB-228"
    assert code_of(clients, test={"a": (X[:, :1], Y)}) == "AB-203"
    assert code_of(clients, holdout=(X[:, :1], Y)) == "AB-203"
    assert code_of(clients, holdout=(X, Y + 0.5)) == "AB-226"


def test_an_empty_client_has_no_kind() -> None:
    """An empty list is a floating array to NumPy; it must not make classes measurements."""
    federation = Federation.from_arrays({"a": (X, Y), "b": (np.array([]), np.array([]))})
    assert federation.classes == 2
    assert federation.train.counts.tolist() == [6, 0]
    assert federation.train.y.dtype == np.int64
    assert federation.train.x.shape == (6, 2)


def test_numbers_may_name_clients() -> None:
    assert Federation.from_arrays({1: (X, Y), 2: (X, Y)}).names == ("1", "2")  # type: ignore[dict-item]


def test_many_classes_and_flags_are_fine() -> None:
    assert Federation.from_arrays({"a": (X, Y + 900)}).classes == 902
    assert Federation.from_arrays({"a": (X, Y > 0)}).classes == 2


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"junk" * 50, b"", b"\x93NUMPY", None])
def test_a_broken_npz_is_named(tmp_path: Path, content: bytes | None) -> None:
    np.savez(tmp_path / "good.npz", x=X, y=Y)
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "bad.npz").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(AnabranchError, match="AB-208") as caught:
        read_folder(tmp_path, None)
    assert "'bad.npz'" in caught.value.message
    assert "numpy.savez" in caught.value.fix


def test_an_npz_without_targets_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X)
    with pytest.raises(AnabranchError, match="AB-219") as caught:
        read_folder(tmp_path, None)
    assert "no array 'y'" in caught.value.message


def test_another_delimiter_or_encoding_is_recognised(tmp_path: Path) -> None:
    schema = DataSchema(
        columns=(Column(name="chol", unit="mg/dl"),), target=Target(column="num", rule="> 0")
    )
    file = tmp_path / "north.csv"
    file.write_text("chol;num\n" + "210;1\n" * 12)
    assert "delimiter = ';'" in check_site(schema, file).text()
    file.write_bytes("chol,num\n210,ä\n".encode("cp1252"))
    text = check_site(schema, file).text()
    assert "encoding" in text
    assert "column ''" not in text  # the file as a whole has no column
