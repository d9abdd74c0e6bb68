"""What every selector must do: a suite to subclass."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from anabranch.fleet.history import FleetHistory
from anabranch.fleet.selection import Code, Known, Selection, Selector, largest_cohort
from anabranch.fleet.shown import Shown
from anabranch.fleet.view import FleetView, unknown_fleet

__all__ = ["SelectorContract", "known_fleet", "mixed_fleet"]


def mixed_fleet(clients: int, seed: int = 0) -> FleetView:
    """Devices of three classes and two regions that differ in everything; some are away or busy."""
    rng = np.random.default_rng(seed)
    return replace(
        unknown_fleet(clients),
        classes=("flagship", "entry", "board"),
        networks=("wifi", "3g"),
        regions=("north", "south"),
        device=rng.choice(3, clients, p=[0.2, 0.7, 0.1]).astype(np.int16),
        network=rng.integers(0, 2, clients).astype(np.int16),
        region=rng.choice(2, clients, p=[0.8, 0.2]).astype(np.int16),
        available=rng.random(clients) < 0.8,
        busy=rng.random(clients) < 0.1,
        charging=rng.random(clients) < 0.3,
        metered=rng.random(clients) < 0.5,
        battery=np.where(rng.random(clients) < 0.1, np.nan, rng.random(clients)),
        battery_joules=np.full(clients, 6e4),
        flops=np.exp(rng.normal(23, 1, clients)),
        watts=np.full(clients, 3.0),
        examples=np.where(rng.random(clients) < 0.1, np.nan, rng.integers(5, 500, clients)),
    )


def known_fleet(clients: int, round_: int = 5, seed: int = 0) -> Known:
    """Four rounds of history, predictions for most clients, and some refusals."""
    rng = np.random.default_rng([seed, 1])
    history = FleetHistory.empty(clients, 3)
    for number in range(1, round_):
        asked = np.flatnonzero(rng.random(clients) < 0.2)
        merged = rng.random(len(asked)) < 0.8
        shown = Shown.of(
            asked.tolist(),
            merged.tolist(),
            rng.random(len(asked)) + 0.1,
            loss=rng.random(len(asked)),
        )
        history = history.after(number, shown)
    refused = np.where(rng.random(clients) < 0.1, Code.METERED, Code.NOT_DRAWN).astype(np.int8)
    seconds = np.where(rng.random(clients) < 0.1, np.nan, rng.random(clients) * 100)
    return Known(round_, history, refused, seconds, seconds * 2.0)


class SelectorContract:
    """Subclass as ``TestMine`` and return your selector from `selector`.

    Set ``fills`` to False when it may choose fewer than wanted although more are eligible.
    """

    fills: ClassVar[bool] = True
    clients: ClassVar[int] = 200

    def selector(self) -> Selector:
        """The selector under test."""
        raise NotImplementedError

    def select(self, wanted: int, seed: int = 0, known: Known | None = None) -> Selection:
        """One selection from the mixed fleet."""
        view = mixed_fleet(self.clients)
        known = known or known_fleet(self.clients)
        return self.selector().select(view, wanted, np.random.default_rng(seed), known)

    def most(self, wanted: int) -> int:
        """Clients that it may choose at most."""
        return largest_cohort(wanted) if self.selector().amplifies else wanted

    def eligible(self, known: Known | None = None) -> np.ndarray:
        """Flags of the clients that may be asked."""
        view = mixed_fleet(self.clients)
        return np.asarray(
            self.selector().codes(view, known or known_fleet(self.clients)) == Code.NOT_DRAWN
        )

    @pytest.mark.parametrize("wanted", [1, 7, 40])
    def test_it_is_a_pure_function(self, wanted: int) -> None:
        view, known = mixed_fleet(self.clients), known_fleet(self.clients)
        for owner in (view, known.history):
            for name in owner.__slots__:
                column = getattr(owner, name)
                if isinstance(column, np.ndarray):
                    column.setflags(write=False)
        for column in (known.refused, known.seconds, known.joules):
            column.setflags(write=False)
        first, again = (
            self.selector().select(view, wanted, np.random.default_rng(3), known) for _ in range(2)
        )
        assert first.clients == again.clients
        assert first.reasons == again.reasons
        np.testing.assert_array_equal(first.codes, again.codes)

    @pytest.mark.parametrize("wanted", [1, 7, 40, 1000])
    def test_only_eligible_clients_once_each(self, wanted: int) -> None:
        for seed in range(5):
            selection = self.select(wanted, seed)
            assert list(selection.clients) == sorted(set(selection.clients))
            assert self.eligible()[list(selection.clients)].all()
            assert len(selection.clients) <= self.most(wanted)

    @pytest.mark.parametrize("wanted", [1, 7, 40])
    def test_it_fills_the_round(self, wanted: int) -> None:
        if not self.fills or self.selector().amplifies:
            pytest.skip("it may choose fewer")
        assert self.eligible().sum() > 2 * wanted
        assert len(self.select(wanted).clients) == wanted

    def test_everybody_has_a_code_and_the_selected_a_reason(self) -> None:
        selection, view = self.select(20), mixed_fleet(self.clients)
        assert len(selection.reasons) == len(selection.clients)
        assert selection.codes.shape == (self.clients,)
        chosen = np.zeros(self.clients, np.bool_)
        chosen[list(selection.clients)] = True
        np.testing.assert_array_equal(selection.codes == Code.SELECTED, chosen)
        assert set(np.unique(selection.codes)) <= {int(code) for code in Code}
        assert (selection.codes[~view.available] == Code.UNAVAILABLE).all()
        assert (selection.codes[view.available & view.busy] == Code.BUSY).all()
        assert sum(selection.counts().values()) == self.clients
        assert sum(selection.reason_counts().values()) == len(selection.clients)

    def test_chance_decides(self) -> None:
        found = {self.select(10, seed).clients for seed in range(8)}
        assert len(found) > 1, "every seed chose the same clients"

    def test_nothing_needs_to_be_known(self) -> None:
        draw = np.random.default_rng(0)
        selection = self.selector().select(unknown_fleet(50), 5, draw)
        assert len(selection.clients) <= self.most(5)
        nobody = replace(unknown_fleet(50), available=np.zeros(50, np.bool_))
        assert self.selector().select(nobody, 5, draw).clients == ()
        assert self.selector().select(unknown_fleet(0), 5, draw).clients == ()

    def test_separation_and_caps_of_the_privacy_claim_hold(self) -> None:
        known = replace(known_fleet(self.clients), separation=3, participations=2)
        history = known.history
        for seed in range(5):
            for client in self.select(60, seed, known).clients:
                assert history.merged[client] < 2
                assert (
                    not history.last_asked[client] or known.round - history.last_asked[client] >= 3
                )

    def test_the_floor_holds(self) -> None:
        selector, clients, wanted = self.selector(), 60, 8
        rounds = selector.floor_rounds
        if rounds is None:
            pytest.skip("it promises no floor")
        assert rounds * wanted >= clients, "choose a floor that 8 of 60 clients a round can keep"
        view = replace(mixed_fleet(clients), battery=np.ones(clients))
        view = replace(view, available=np.ones(clients, np.bool_), busy=np.zeros(clients, np.bool_))
        known = replace(known_fleet(clients, 1), refused=Known.nothing(clients).refused)
        last = np.zeros(clients, np.int64)
        for round_ in range(1, 4 * rounds + 1):
            known = replace(known, round=round_)
            draw = np.random.default_rng(round_)
            asked = list(selector.select(view, wanted, draw, known).clients)
            last[asked] = round_
            assert (round_ - last < rounds).all(), "somebody waited too long"
            losses = draw.random(len(asked)) * (1 + np.array(asked))
            shown = Shown.of(asked, [True] * len(asked), loss=losses)
            known = replace(known, history=known.history.after(round_, shown))

    def test_its_settings_survive_a_plan(self) -> None:
        selector = self.selector()
        assert type(selector).model_validate_json(selector.model_dump_json()) == selector
