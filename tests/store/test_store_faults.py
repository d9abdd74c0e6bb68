"""Full disks, read-only folders, damaged files: a named error, and the last round intact."""

import errno
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from anabranch.client.states import SLOT_POINTS, SlotFile
from anabranch.coordinator.store import (
    KILL_POINTS,
    GroupedCommits,
    RoundRecord,
    RunRecord,
    RunSession,
    Store,
    migrations,
)
from anabranch.disk import Faults, file_points, no_faults
from anabranch.errors import AnabranchError, page_of
from anabranch.testing.faults import DiskFull, FailAt, Trace
from anabranch.testing.store import record

BEFORE = [p for p in KILL_POINTS if p.split(".")[0] in ("blob", "round") and "after" not in p]


class Switch:
    """Passes points on to a fault once it is armed."""

    def __init__(self) -> None:
        self.target: Faults = no_faults

    def reach(self, point: str) -> None:
        self.target.reach(point)


def started(folder: Path, switch: Faults) -> tuple[Store, RunSession]:
    store = Store.open(folder, switch)
    session = store.session(store.create_run(RunRecord("r")))
    session.commit([record(1)])
    return store, session


@pytest.mark.parametrize("point", BEFORE)
@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "AB-602"), (errno.EROFS, "AB-603"), (errno.EIO, "AB-613")],
)
def test_failed_commit_leaves_the_last_round(
    point: str, number: int, code: str, tmp_path: Path
) -> None:
    switch = Switch()
    store, session = started(tmp_path, switch)
    with store, session:
        switch.target = FailAt(point, number=number)
        with pytest.raises(AnabranchError, match=code) as caught:
            session.commit([record(2)])
        assert "intact" in caught.value.kept
        assert session.latest().round == 1
        assert not list(tmp_path.glob("blobs/*/.tmp-*"))
        switch.target = no_faults
        session.commit([record(2)])
        assert session.latest().round == 2
        run_id = session.run_id
    with Store.open(tmp_path) as store:
        assert [r.round for r in store.rounds(run_id)] == [1, 2]
        assert len(list(tmp_path.glob("blobs/*/*"))) == 1


def test_injected_points_cover_every_blob_write() -> None:
    assert set(file_points("blob")) - set(BEFORE) == {
        p for p in file_points("blob") if p.endswith("after")
    }


@pytest.mark.parametrize("purpose", ["create", "status", "note"])
def test_full_disk_in_other_transactions(purpose: str, tmp_path: Path) -> None:
    switch = Switch()
    store, session = started(tmp_path, switch)
    calls = {
        "create": lambda: store.create_run(RunRecord("other")),
        "status": lambda: session.finish("complete"),
        "note": lambda: session.note(),
    }
    with store, session:
        switch.target = DiskFull(f"{purpose}.commit.before")
        with pytest.raises(AnabranchError, match="AB-602"):
            calls[purpose]()
        assert len(store.runs()) == 1
        assert store.run(session.run_id).status == "running"


def test_sqlite_itself_finds_the_disk_full(tmp_path: Path) -> None:
    """Not injected: SQLite's own limit on pages gives its real error and its real rollback."""
    store, session = started(tmp_path, no_faults)
    wide = RoundRecord(2, metrics={f"m{i}": 0.5 for i in range(20_000)}, state=record(2).state)
    with store, session:
        with store._database.reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(AnabranchError, match="AB-602"):
            session.commit([wide])
        assert session.latest().round == 1
        session.commit([record(2)])


def test_sqlite_itself_finds_the_file_read_only(tmp_path: Path) -> None:
    store, session = started(tmp_path, no_faults)
    with store, session:
        with store._database.reading() as connection:
            connection.exec_driver_sql("PRAGMA query_only=ON")
        with pytest.raises(AnabranchError, match="AB-603"):
            session.commit([record(2)])
        assert session.latest().round == 1


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(AnabranchError, match="AB-603"):
            Store.open(path)


def test_no_store_to_read(tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match="AB-617"):
        Store.open(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing").exists()


def test_corrupted_and_missing_blobs(tmp_path: Path) -> None:
    store, session = started(tmp_path, no_faults)
    with store, session:
        (blob,) = tmp_path.glob("blobs/*/*.safetensors")
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.write_bytes(content)
        with pytest.raises(AnabranchError, match="AB-604"):
            session.latest()
        with pytest.raises(AnabranchError, match="AB-604"):
            store.model(session.run_id)
        blob.unlink()
        with pytest.raises(AnabranchError, match="AB-605"):
            session.latest()
        with pytest.raises(AnabranchError, match="AB-605"):
            store.model(session.run_id)


def change(folder: Path, statement: str) -> None:
    engine = create_engine(f"sqlite:///{folder / 'store.sqlite'}")
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_newer_schema(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    change(tmp_path, "UPDATE meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(AnabranchError, match=r"AB-606.*schema 99"):
        Store.open(tmp_path)


def test_older_schema_is_migrated_step_by_step(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'store.sqlite'}")
    steps = {
        1: lambda c: c.execute(text("CREATE TABLE two (x INTEGER)")),
        2: lambda c: c.execute(text("ALTER TABLE two ADD COLUMN y INTEGER")),
    }
    with engine.begin() as connection:
        assert migrations.schema_version(connection) == 1
        migrations.prepare(connection, 1, wanted=3, steps=steps)
    with engine.begin() as connection:
        assert migrations.schema_version(connection) == 3
        connection.execute(text("INSERT INTO two (x, y) VALUES (1, 2)"))
    engine.dispose()


def test_every_older_schema_has_a_step() -> None:
    assert set(migrations.STEPS) == set(range(1, migrations.tables.SCHEMA_VERSION))


@pytest.mark.parametrize("content", [b"not a database, but long enough" * 99, b""])
def test_a_database_of_somebody_else(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(content)
    if not content:
        change(tmp_path, "CREATE TABLE theirs (x INTEGER)")
    with pytest.raises(AnabranchError, match="AB-612"):
        Store.open(tmp_path)


def test_broken_release_chain(tmp_path: Path) -> None:
    store, session = started(tmp_path, no_faults)
    with store, session:
        session.commit([record(2)])
        run_id = session.run_id
        assert len(store.releases(run_id)) == 2
    for statement in (
        "UPDATE releases SET what = 'nothing' WHERE sequence = 1",
        "DELETE FROM releases WHERE sequence = 0",
    ):
        copy = tmp_path / f"copy{len(statement)}"
        shutil.copytree(tmp_path, copy, ignore=shutil.ignore_patterns("copy*"))
        change(copy, statement)
        with Store.open(copy) as changed, pytest.raises(AnabranchError, match="AB-610"):
            changed.releases(run_id)


def test_without_sqlalchemy(tmp_path: Path) -> None:
    """Importing the room needs no SQLAlchemy; opening a store names the extra."""
    script = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from anabranch.coordinator.store import Store\n"
        f"Store.open({str(tmp_path)!r})"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "AB-601" in found.stderr
    assert "anabranch[coordinator]" in found.stderr


def test_client_states_that_are_gone(tmp_path: Path) -> None:
    with SlotFile(tmp_path / "s", 3, 4) as states:
        states.restore({})
        with pytest.raises(AnabranchError, match="AB-619"):
            states.restore({1: 0})


def test_client_state_file_of_another_shape(tmp_path: Path) -> None:
    SlotFile(tmp_path / "s", 3, 4).close()
    SlotFile(tmp_path / "s", 3, 4).close()
    for clients, length in ((4, 4), (3, 5)):
        with pytest.raises(AnabranchError, match="AB-611"):
            SlotFile(tmp_path / "s", clients, length)


@pytest.mark.parametrize("point", [p for p in SLOT_POINTS if "after" not in p])
def test_full_disk_in_client_states(point: str, tmp_path: Path) -> None:
    switch = Switch()
    switch.target = DiskFull(point)

    def use() -> None:
        with SlotFile(tmp_path / "s", 2, 4, faults=switch) as states:
            states.write_pending(0, np.ones(4, np.float32))
            states.promote(0)
            states.sync()

    with pytest.raises(AnabranchError, match="AB-602"):
        use()


def test_no_second_chance_after_a_failed_sync(tmp_path: Path) -> None:
    """The kernel may report a lost write once only; believing a later sync would lose it."""
    faults = FailAt("slots.sync.before", number=errno.EIO)
    store = Store.open(tmp_path)
    session = store.session(store.create_run(RunRecord("r")))
    with store, session, SlotFile(session.states_path, 2, 4, faults=faults) as states:
        commits = GroupedCommits(session, 0, states=states)
        with pytest.raises(AnabranchError, match="AB-613"):
            commits.add(record(1))
        with pytest.raises(AnabranchError, match="AB-613"):
            commits.flush()
        assert session.latest() is None


def test_every_code_has_a_page() -> None:
    root = Path(__file__).parents[2]
    sources = [*root.glob("src/anabranch/coordinator/store/*.py")]
    sources += [root / "src/anabranch/disk.py", root / "src/anabranch/client/states.py"]
    codes = {code for path in sources for code in re.findall(r"AB-6\d\d", path.read_text())}
    assert len(codes) >= 18
    for code in codes:
        page = (root / page_of(code)).read_text()
        assert page.startswith(f"# {code}: ")
        for heading in ("## What happened", "## How to resolve", "## Example"):
            assert heading in page


def test_trace_counts() -> None:
    trace = Trace()
    trace.reach("a")
    trace.reach("a")
    assert trace.counts == {"a": 2}
