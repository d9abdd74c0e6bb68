"""A client that is killed before its answer has arrived gives the same bytes to the same letter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from secagg_sums import (
    Bench,
    Members,
    equal,
    fates_of,
    identity_of,
    plain_total,
    total_of,
    update_of,
)

from anabranch.client.secure import broadcast_digest
from anabranch.client.secure_keeper import FileKeeper
from anabranch.client.task import Fate, TaskKind
from anabranch.coordinator.runtime import Work
from anabranch.coordinator.secure_sum import Phase
from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.remembered import read_remembered, remembered_bytes
from anabranch.privacy.secure_aggregation.terms import Known

STAGES = (Phase.KEYS, Phase.NONCES, Phase.SHARES, Phase.SIGNATURES, Phase.REVEALS)


@dataclass
class Killed(Bench):
    """Clients on their disks, who are killed after each answer to a letter and asked once more.

    Attributes:
        folder: of all clients.
        forgets: control: what was answered is taken out of the memory.
    """

    folder: Path = Path()
    forgets: bool = False
    twice: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.members.names
        self.members = Members(names, self.terms, Known(), self.disk)

    def disk(self, client: int) -> FileKeeper:
        name = self.members.names[client]
        return FileKeeper(self.folder / name, identity_of(name))

    def answer(self, work: Work, client: int) -> bytes:
        first = super().answer(work, client)
        self.members.keepers.pop(client)
        if work.kind is not TaskKind.EXCHANGE:
            return first
        if self.forgets:
            keeper = self.disk(client)
            known = keeper.load()
            bare = {key: replace(track, answer=b"") for key, track in known.tracks.items()}
            keeper.save(replace(known, tracks=bare))
        again = super().answer(work, client)
        assert again == first
        self.members.keepers.pop(client)
        self.twice += 1
        return again


def test_every_stage_may_be_answered_twice_and_costs_nothing(tmp_path: Path) -> None:
    bench = Killed(folder=tmp_path)
    made = bench.run()
    assert equal(total_of(made), plain_total(bench.terms, 6, range(6), 1))
    assert set(fates_of(made).values()) == {Fate.MERGED}
    assert bench.twice == 6 * len(STAGES)


def to_stage(bench: Bench, stage: Phase) -> Work:
    """Go on until the letters of a stage are there."""
    made, work = bench.start()
    while made.phase is not stage:
        assert work is not None
        bench.ask(made, work)
        work = made.advance()
    assert work is not None
    return work


@pytest.mark.parametrize("stage", STAGES[:4])
def test_control_a_client_that_keeps_no_answers_refuses_the_letter(
    stage: Phase, tmp_path: Path
) -> None:
    bench = Killed(folder=tmp_path)
    work = to_stage(bench, stage)
    bench.forgets = True
    with pytest.raises(AnabranchError, match=r"AB-95\d|AB-96\d"):
        bench.answer(work, 0)


@pytest.mark.parametrize("stage", STAGES)
def test_only_the_same_letter_is_answered_again(stage: Phase, tmp_path: Path) -> None:
    """One bit more in the letter, and it is another question to a client that has gone on."""
    bench = Killed(folder=tmp_path)
    work = to_stage(bench, stage)
    session = bench.members.session(0)
    letter = work.letters[0]
    first = session.answer(letter)
    for place in (5, len(letter) // 2, len(letter) - 1):
        other = bytearray(letter)
        other[place] ^= 1
        with pytest.raises(AnabranchError, match=r"AB-95\d|AB-96\d"):
            session.answer(bytes(other))
    assert session.answer(letter) == first


def test_behind_masks_nothing_from_before_the_update_is_answered_again(tmp_path: Path) -> None:
    bench = Killed(folder=tmp_path)
    made, work = bench.start()
    letters = {}
    while made.phase is not Phase.UPDATE:
        assert work is not None
        letters[made.phase] = work.letters[0]
        bench.ask(made, work)
        work = made.advance()
    assert work is not None
    session = bench.members.session(0)
    session.mask(work.letters[0], update_of(0, 1), broadcast_digest(work.broadcast))
    for letter in letters.values():
        with pytest.raises(AnabranchError, match=r"AB-95\d|AB-96\d"):
            session.answer(letter)


def test_a_memory_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    bench = Killed(folder=tmp_path)
    to_stage(bench, Phase.SHARES)
    known = bench.disk(0).load()
    (key,) = known.tracks
    bare = replace(known, tracks={key: replace(known.tracks[key], answer=b"")})
    written = remembered_bytes(bare)
    empty = remembered_bytes(replace(bare, tracks={}))
    assert written.startswith(b"anabranch-secagg-memory/2")
    assert empty.endswith(bytes(4))
    # The digest of the letter, and an answer of no bytes, whose length takes four.
    old = written[: -32 - 4].replace(b"memory/2", b"memory/1", 1)
    found = read_remembered(old, identity_of(bench.members.names[0]))
    assert found.tracks[key].round == known.tracks[key].round
    assert remembered_bytes(found)[: len(written) - 36] == written[: len(written) - 36]
