"""Tables of devices and traces: what is read, and what is refused with file, column and row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anabranch.errors import AnabranchError
from anabranch.fleet.devices.classes import CLASS_NAMES, CLASSES
from anabranch.fleet.devices.draws import Draws
from anabranch.fleet.devices.network import NETWORK_NAMES, NETWORKS
from anabranch.fleet.devices.profiles import draw_profiles, read_profiles
from anabranch.fleet.devices.tables import write_device_table
from anabranch.fleet.devices.traces import read_trace

NAMES = ("va", "ke")


def csv(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def refused(code: str) -> pytest.RaisesExc[AnabranchError]:
    return pytest.RaisesExc(AnabranchError, check=lambda error: error.code == code)


def test_profiles_take_what_is_said_and_priors_for_the_rest(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        "client,class,network,gflops,battery_mah,up_mbps,region,utc_offset,metered\n"
        "ke,entry,3g,10,4000,0.8,kenya,3,no\n"
        "other,mid,,,,,,,\n"
        "va,mid,,,,,,,\n",
    )
    profiles = read_profiles(path, NAMES)
    assert [CLASS_NAMES[code] for code in profiles.device] == ["mid", "entry"]
    assert [NETWORK_NAMES[code] for code in profiles.network] == ["4g", "3g"]
    assert profiles.flops.tolist() == [25e9, 10e9]
    assert profiles.up.tolist() == [3e6 / 8, 0.8e6 / 8]
    # 4000 mAh at 3.85 V, 3.6 J for each mAh and volt
    assert profiles.battery.tolist() == pytest.approx([69_000.0, 55_440.0])
    assert profiles.metered.tolist() == [True, False]
    assert profiles.utc_offset.tolist() == [0.0, 3.0]
    assert [profiles.regions[code] for code in profiles.region] == ["UTC", "kenya"]
    assert np.isinf(profiles.data_budget).all()


@pytest.mark.parametrize(
    ("code", "text", "says"),
    [
        ("AB-531", "client,network\nva,3g\n", "class"),
        ("AB-531", "client,class,speed\nva,mid,3\n", "speed"),
        ("AB-531", "client,class\n", "no rows"),
        ("AB-532", "client,class\nva,tablet\nke,mid\n", "row 2"),
        ("AB-532", "client,class,gflops\nva,mid,8\nke,mid,-3\n", "row 3"),
        ("AB-532", "client,class,gflops\nva,mid,fast\nke,mid,1\n", "gflops"),
        ("AB-532", "client,class,watts\nva,mid,nan\nke,mid,0\n", "above 0 W"),
        ("AB-532", "client,class,utc_offset\nva,mid,20\nke,mid,0\n", "-12 to 14"),
        ("AB-532", "client,class,metered\nva,mid,maybe\nke,mid,no\n", "yes or no"),
        ("AB-532", "client,class\n,mid\nke,mid\n", "missing"),
        ("AB-533", "client,class\nva,mid\n", "no row for client 'ke'"),
        ("AB-533", "client,class\nva,mid\nke,mid\nva,entry\n", "two rows for client 'va'"),
        ("AB-530", "client,class\nva,mid,3\n", "cannot be read"),
        ("AB-530", "client,client\nva,ke\n", "cannot be read"),
    ],
)
def test_bad_profiles_are_refused(tmp_path: Path, code: str, text: str, says: str) -> None:
    with refused(code) as caught:
        read_profiles(csv(tmp_path, text), NAMES)
    assert says in str(caught.value)


def test_files_of_another_kind_or_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for name in ("no.csv", "table.xlsx"):
        with refused("AB-530"):
            read_profiles(tmp_path / name, NAMES)
    (tmp_path / "bytes.csv").write_bytes(b"client,class\n\xff\xfe,mid\n")
    with refused("AB-530"):
        read_profiles(tmp_path / "bytes.csv", NAMES)
    (tmp_path / "text.parquet").write_text("client,class\n")
    with refused("AB-530"):
        read_profiles(tmp_path / "text.parquet", NAMES)
    with refused("AB-530"):
        write_device_table(tmp_path / "table.json", {"client": ["va"]})


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_both_kinds_of_file_give_the_same_trace(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"trace.{ending}"
    write_device_table(
        path,
        {
            "client": ["va", "ke", "va"],
            "start": [0.0, 0.0, 600.0],
            "end": [600.0, 1000.0, 900.0],
            "available": ["yes", "no", "no"],
            "network": ["3g", None, "wifi"],
            "gflops": [5.0, None, None],
        },
    )
    trace = read_trace(path, NAMES)
    assert trace.offsets.tolist() == [0, 2, 3]
    assert trace.end.tolist() == [600.0, 900.0, 1000.0]
    assert trace.available.tolist() == [True, False, False]
    assert trace.network.tolist() == [NETWORK_NAMES.index("3g"), NETWORK_NAMES.index("wifi"), -1]
    np.testing.assert_array_equal(trace.flops, [5e9, np.nan, np.nan])


@pytest.mark.parametrize(
    ("code", "rows", "says"),
    [
        ("AB-534", "va,0,600,\nva,900,1000,\nke,0,1,", "row 3 of client 'va' leaves a gap"),
        ("AB-534", "va,0,600,\nke,0,1,\nva,500,1000,", "row 4 of client 'va' starts before"),
        ("AB-534", "va,600,900,\nke,0,1,\nva,0,600,", "starts before"),
        ("AB-534", "va,600,600,\nke,0,1,", "ends before it starts"),
        ("AB-532", "va,0,600,1.5\nke,0,1,", "from 0 to 1"),
        ("AB-532", "va,-5,600,\nke,0,1,", "at least 0 s"),
        ("AB-532", "va,0,,\nke,0,1,", "missing"),
        ("AB-533", "va,0,600,", "no row for client 'ke'"),
    ],
)
def test_bad_traces_are_refused(tmp_path: Path, code: str, rows: str, says: str) -> None:
    path = csv(tmp_path, "client,start,end,battery\n" + rows + "\n")
    with refused(code) as caught:
        read_trace(path, NAMES)
    assert says in str(caught.value)


def test_shares_of_a_mix_are_kept_and_clients_do_not_depend_on_each_other() -> None:
    mix = {"entry": 3.0, "mid": 1.0}
    fleet = draw_profiles(20_000, mix, 7, regions={"ke": 3.0, "in": 5.5})
    share = (fleet.device == CLASS_NAMES.index("entry")).mean()
    assert abs(share - 0.75) < 0.01  # three standard errors of 20,000 draws
    assert abs((fleet.region == 0).mean() - 0.5) < 0.011
    small = draw_profiles(100, mix, 7, regions={"ke": 3.0, "in": 5.5})
    np.testing.assert_array_equal(small.device, fleet.device[:100])
    np.testing.assert_array_equal(small.network, fleet.network[:100])
    other = draw_profiles(100, mix, 8)
    assert not np.array_equal(small.device, other.device)


def test_every_prior_says_where_it_comes_from() -> None:
    for table in (CLASSES, NETWORKS):
        for entry in table.values():
            priors = [v for v in dict(entry).values() if hasattr(v, "mark")]
            assert priors
            assert all(prior.source and prior.unit for prior in priors)


def test_uniforms_are_uniform_independent_and_addressed() -> None:
    draws, rows = Draws.of(3, "test"), np.arange(50_000)
    first, second = draws.uniforms(rows, 0), draws.uniforms(rows, 1)
    assert 0 < first.min() < first.max() < 1
    assert abs(first.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.02
    np.testing.assert_array_equal(first[[5, 9]], draws.uniforms(np.array([5, 9])))
    normals = draws.normals(rows)
    assert abs(normals.std() - 1) < 0.02
    assert abs(draws.exponentials(rows).mean() - 1) < 0.02
    assert not np.array_equal(first, Draws.of(4, "test").uniforms(rows))
    assert not np.array_equal(first, Draws.of(3, "test", 1).uniforms(rows))
