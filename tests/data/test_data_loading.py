"""From a plan's data table to a federation."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from anabranch.data import (
    Column,
    DataPlan,
    DataSchema,
    Federation,
    Target,
    check_site,
    describe,
    load_federation,
    picture,
    read_table,
)
from anabranch.data.own import site_files
from anabranch.errors import AnabranchError

SCHEMA = DataSchema(
    columns=(
        Column(name="age", unit="years", range=(0, 120)),
        Column(name="ward", type="category"),
    ),
    target=Target(column="ill", rule="> 0"),
)
FASHION = Path("/usr/share/datasets/fashion-mnist")
SECRET = "98765"


def site(rows: int, start: int = 0, wards: str = "xy") -> str:
    lines = [f"{20 + (start + i) % 60},{wards[i % len(wards)]},{i % 2}" for i in range(rows)]
    return "\n".join(["age,ward,ill", *lines]) + "\n"


def folder(tmp_path: Path, **sites: str) -> DataPlan:
    for name, text in sites.items():
        (tmp_path / f"{name}.csv").write_text(text, "utf-8")
    return DataPlan(source="folder", path=str(tmp_path), table=SCHEMA)


def refused(plan: DataPlan) -> AnabranchError:
    with pytest.raises(AnabranchError) as caught:
        load_federation(plan, 0)
    return caught.value


def test_heart_is_ready_for_learning() -> None:
    loaded = load_federation(DataPlan(source="heart"), 0)
    federation = loaded.federation
    assert federation.names == ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")
    assert federation.test is not None
    assert (federation.train.counts + federation.test.counts).tolist() == [304, 293, 123, 200]
    assert federation.test.counts.tolist() == [100, 97, 41, 66]
    assert federation.classes == 2
    assert federation.train.x.dtype == np.float32
    assert np.isfinite(federation.train.x).all()
    assert len(federation.features) == federation.train.x.shape[1]
    assert loaded.card.partition == "natural"
    assert [release.total.contributors for release in loaded.releases] == [4]
    assert "sums over 4 clients" in loaded.releases[0].description


def test_numbers_are_scaled_over_all_sites_from_training_rows_only() -> None:
    federation = load_federation(DataPlan(source="heart"), 0).federation
    age = federation.train.x[:, federation.features.index("age")].astype(np.float64)
    assert age.mean() == pytest.approx(0, abs=1e-5)
    assert age.std() == pytest.approx(1, abs=1e-5)


def test_the_seed_and_the_repeat_decide() -> None:
    def digest(seed: int, repeat: int = 0) -> str:
        plan = DataPlan(source="heart", split_repeat=repeat)
        return load_federation(plan, seed).federation.digest()

    assert digest(0) == digest(0)
    assert len({digest(0), digest(1), digest(0, 1)}) == 3


def test_a_hold_out_at_the_coordinator() -> None:
    plan = DataPlan(source="heart", holdout_fraction=0.1, test_fraction=0.3)
    federation = load_federation(plan, 0).federation
    assert federation.holdout is not None
    assert federation.test is not None
    assert len(federation.holdout) == pytest.approx(92, abs=2)
    assert federation.test.counts.sum() == pytest.approx(276, abs=3)
    assert federation.train.counts.sum() + 92 + 276 == pytest.approx(920, abs=5)


def test_a_natural_source_can_be_divided_otherwise() -> None:
    plan = DataPlan.model_validate(
        {"source": "heart", "partition": {"kind": "dirichlet", "clients": 6, "alpha": 1.0}}
    )
    loaded = load_federation(plan, 0)
    assert loaded.federation.names == tuple(f"client-{n}" for n in range(6))
    assert loaded.card.partition.startswith("synthetic: Dirichlet(1)")


def test_noise_is_said_in_the_card() -> None:
    plan = DataPlan.model_validate({"source": "heart", "noise": {"level": 0.1}})
    loaded = load_federation(plan, 0)
    assert loaded.card.partition == "synthetic: natural + feature noise up to variance 0.1"
    clean = load_federation(DataPlan(source="heart"), 0).federation
    assert not np.array_equal(clean.train.x, loaded.federation.train.x)
    assert np.array_equal(clean.train.y, loaded.federation.train.y)


def test_a_folder_with_learnt_codes(tmp_path: Path) -> None:
    plan = folder(tmp_path, north=site(40), south=site(60, 7), west=site(30, 3, "xz"))
    loaded = load_federation(plan, 0)
    assert loaded.federation.names == ("north", "south", "west")
    # x at three sites, y at two; z at one site only, so it stays there.
    assert loaded.federation.features == ("age", "ward=x", "ward=y", "ward is missing")
    assert [release.name for release in loaded.releases] == [
        "vocabulary of columns without codes",
        "column statistics of training rows",
    ]
    assert loaded.schema is not None
    assert loaded.preprocessor is not None
    # A site that reads its own file with the learnt schema gets the simulation's features.
    alone = read_table(loaded.schema, tmp_path / "west.csv", "west")
    everything = loaded.preprocessor.apply(alone).x
    seen = loaded.federation.train.of(2).x
    assert {row.tobytes() for row in seen} <= {row.tobytes() for row in everything}


def test_folders_inside_the_folder_with_their_own_words(tmp_path: Path) -> None:
    for name, column in (("a", "age"), ("b", "alter")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.csv").write_text(site(30).replace("age", column, 1))
    (tmp_path / "b" / "site.toml").write_text('[columns.age]\ncolumn = "alter"\n')
    federation = load_federation(folder(tmp_path), 0).federation
    assert federation.names == ("a", "b")
    assert np.array_equal(np.sort(federation.train.y[:24]), np.sort(federation.train.y[24:]))


def test_one_table_with_a_client_column(tmp_path: Path) -> None:
    rows = [f"{n % 3},{20 + n % 50},x,{n % 2}" for n in range(90)]
    (tmp_path / "all.csv").write_text("\n".join(["site,age,ward,ill", *rows]) + "\n")
    plan = DataPlan(
        source="table", path=str(tmp_path / "all.csv"), client_column="site", table=SCHEMA
    )
    federation = load_federation(plan, 0).federation
    assert federation.names == ("0", "1", "2")
    assert federation.train.counts.tolist() == [24, 24, 24]
    assert refused(plan.replace(client_column="clinic")).code == "AB-210"
    (tmp_path / "all.csv").write_text("site,age,ward,ill\n1,30,x,0\n,30,x,0\n")
    error = refused(plan)
    assert error.code == "AB-210"
    assert "row 3" in error.message
    (tmp_path / "all.csv").write_text(f"site,age,ward,ill\nva,30,x,0\nhu,{SECRET},x,0\n")
    error = refused(plan)
    assert error.code == "AB-215"
    assert "client 'hu'" in error.message
    assert SECRET not in str(error)


def test_npz_arrays_need_no_schema(tmp_path: Path) -> None:
    for name in ("a", "b"):
        x = np.random.default_rng(0).normal(size=(10, 3))
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(10) % 2)
    plan = DataPlan(source="folder", path=str(tmp_path))
    assert load_federation(plan, 0).federation.train.x.shape == (16, 3)
    np.savez(tmp_path / "b.npz", x=np.full((10, 3), np.inf), y=np.arange(10))
    assert refused(plan).code == "AB-204"
    np.savez(tmp_path / "b.npz", x=np.zeros((10, 4)), y=np.arange(10))
    assert refused(plan).code == "AB-203"
    np.savez(tmp_path / "b.npz", x=np.zeros((10, 3)), y=np.arange(9))
    assert refused(plan).code == "AB-202"
    np.savez(tmp_path / "b.npz", z=np.zeros((10, 3)))
    assert refused(plan).code == "AB-219"


def test_bad_folders(tmp_path: Path) -> None:
    plan = DataPlan(source="folder", path=str(tmp_path / "no"), table=SCHEMA)
    assert refused(plan).code == "AB-207"
    (tmp_path / "no").mkdir()
    assert refused(plan).code == "AB-209"
    (tmp_path / "no" / "a.csv").write_text(site(10))
    assert refused(plan.replace(table=None)).code == "AB-219"
    (tmp_path / "no" / "a.npz").write_bytes(b"")
    assert refused(plan).code == "AB-209"
    with pytest.raises(AnabranchError, match="AB-209"):
        site_files(tmp_path / "no")


def test_clients_with_no_or_one_example(tmp_path: Path) -> None:
    plan = folder(tmp_path, a=site(20), b=site(1))
    federation = load_federation(plan, 0).federation
    assert federation.train.counts.tolist() == [16, 1]
    assert federation.test is not None
    assert federation.test.counts.tolist() == [4, 0]
    strict = plan.replace(min_examples=2)
    error = refused(strict)
    assert error.code == "AB-221"
    assert "'b' has 1 training" in error.message
    assert load_federation(strict.replace(too_few="drop"), 0).federation.names == ("a",)
    (tmp_path / "b.csv").write_text(site(0))
    assert refused(plan).code == "AB-211"
    assert refused(strict.replace(min_examples=99, too_few="drop")).code in ("AB-211", "AB-221")


def test_different_columns_are_named_with_the_client(tmp_path: Path) -> None:
    error = refused(folder(tmp_path, a=site(10), b=site(10).replace("age", "years", 1)))
    assert (error.code, "client 'b': column 'age'" in error.message) == ("AB-212", True)


def test_sources_without_clients_or_arrays() -> None:
    plan = DataPlan.model_validate({"source": "digits", "partition": {"kind": "natural"}})
    pytest.importorskip("sklearn")
    assert refused(plan).code == "AB-220"
    assert refused(DataPlan(source="arrays")).code == "AB-222"


def test_plans_that_cannot_be() -> None:
    with pytest.raises(ValidationError, match="nothing for training"):
        DataPlan(test_fraction=0.5, holdout_fraction=0.5)
    with pytest.raises(ValidationError, match="needs a path"):
        DataPlan(source="folder")


@pytest.mark.skipif(not FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_over_100_clients_is_fast() -> None:
    plan = DataPlan.model_validate(
        {
            "source": "fashion-mnist",
            "partition": {"kind": "dirichlet", "clients": 100, "alpha": 0.1},
        }
    )
    start = time.perf_counter()
    federation = load_federation(plan, 0).federation
    assert time.perf_counter() - start < 20  # about one second on an idle machine
    assert len(federation) == 100
    assert federation.train.counts.min() >= 10
    assert federation.holdout is not None
    assert federation.holdout.x.shape == (10000, 784)
    assert federation.train.x.dtype == np.float32
    assert (federation.train.x.min(), federation.train.x.max()) == (0.0, 1.0)
    heterogeneity = describe(federation)
    assert heterogeneity.total_variation > 0.6


def test_the_check_finds_everything_and_tells_no_value(tmp_path: Path) -> None:
    path = tmp_path / "va.csv"
    lines = ["age,ward,ill", *["30,x,1"] * 40, f"{SECRET},x,0", f"x{SECRET},x,", ",x,1"]
    path.write_text("\n".join(lines) + "\n")
    report = check_site(SCHEMA, path)
    assert not report.fits
    assert {problem.code for problem in report.problems} == {"AB-214", "AB-215", "AB-216"}
    assert report.columns[0].missing == "fewer than 10"
    assert report.rows == "about 40"
    for rendered in (report.text(), report.json()):
        assert SECRET not in rendered
        assert "row 42" in rendered
    document = json.loads(report.json())
    assert document["fits"] is False
    assert len(document["problems"]) == 3


def test_the_check_of_good_unreadable_and_empty_data(tmp_path: Path) -> None:
    path = tmp_path / "va.csv"
    assert check_site(SCHEMA, path).problems[0].code == "AB-207"
    path.write_text(site(40))
    assert check_site(SCHEMA, path).fits
    assert "fit the contract" in check_site(SCHEMA, path, site="VA").text()
    path.write_text(site(0))
    assert check_site(SCHEMA, path).problems[0].code == "AB-211"
    path.write_text("")
    assert check_site(SCHEMA, path).problems[0].code == "AB-208"
    (tmp_path / "va.site.toml").write_text("[nonsense]\n")
    assert check_site(SCHEMA, path).problems[0].code == "AB-213"


def test_the_description_by_hand() -> None:
    clients = {
        "a": (np.zeros((4, 1)), np.array([0, 0, 0, 0])),
        "b": (np.zeros((4, 1)), np.array([1, 1, 1, 1])),
    }
    description = describe(Federation.from_arrays(clients))
    assert description.labels.tolist() == [[4, 0], [0, 4]]
    # Each client is at distance 1/2 from (1/2, 1/2); the divergence is 3/4 log2(4/3)... by hand:
    middle = np.array([0.75, 0.25])
    divergence = (
        np.log2(1 / middle[0]) + 0.5 * np.log2(0.5 / middle[0]) + 0.5 * np.log2(0.5 / middle[1])
    ) / 2
    assert description.total_variation == pytest.approx(0.5)
    assert description.jensen_shannon == pytest.approx(np.sqrt(divergence))
    assert "total variation 0.500" in description.text()


def test_the_description_of_heart_shows_missingness_and_a_picture() -> None:
    pytest.importorskip("matplotlib")
    description = describe(load_federation(DataPlan(source="heart"), 0).federation)
    missing = dict(zip(description.missing_names, description.missing.T, strict=True))
    assert (missing["ca"] > [-0.1, 0.9, 0.9, 0.9]).all()
    drawing = picture(description)
    assert drawing.startswith("<?xml")
    assert drawing == picture(description)
    assert "Cleveland" in drawing


def test_the_description_of_a_regression() -> None:
    clients = {"a": (np.zeros((8, 1)), np.linspace(0, 1, 8))}
    description = describe(Federation.from_arrays(clients))
    assert description.labels.tolist() == [[2, 2, 2, 2]]
    assert description.total_variation == 0.0


@pytest.mark.slow
def test_a_hundred_thousand_generated_clients() -> None:
    plan = DataPlan(source="synthetic-logistic", options={"clients": 100_000})
    federation = load_federation(plan, 0).federation
    assert len(federation) == 100_000
    assert federation.train.x.shape == (2_000_000, 60)
