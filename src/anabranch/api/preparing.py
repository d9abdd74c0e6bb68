"""Before the first round of a served run: what follows from all sites' data.

The coordinator has no rows. Sites tell declared sums: sizes, codes of open columns, moments of
columns; each total passes the release door like every other. What is fitted on them, the
`Equipment`, is written down before the first round, so that a restart asks nobody again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.api.members import Members, shape_of
from anabranch.api.prepare import (
    Prepared,
    prepare,
    program_of,
    require_open_statistics,
    require_statistics,
)
from anabranch.api.private import LEDGERS, ShowsLedger, checked_promise
from anabranch.api.servable import OWN_SOURCES
from anabranch.api.statistics import StatisticsBudget
from anabranch.client.equipment import DESCRIPTION, Equipment
from anabranch.client.task import TaskKind
from anabranch.coordinator.asking import task_name
from anabranch.coordinator.declined import declined_of
from anabranch.coordinator.runtime import Fate, Outcome, Payload, Runtime, Work
from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.data.bounded import neutral, require_bounds
from anabranch.data.load import LoadedData
from anabranch.data.preprocess import (
    Preprocessor,
    PreprocessRules,
    StatisticRelease,
    fit_preprocessor,
)
from anabranch.data.schema import DataSchema
from anabranch.data.statistics import statistic_sections, withhold_small
from anabranch.data.vocabulary import fit_vocabulary, vocabulary_sections
from anabranch.disk import Faults, explained, make_directory, no_faults, write_durably
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, check_against_fleet
from anabranch.plan.check import check_against_data, check_against_layout
from anabranch.updates.sections import Sections, Update
from anabranch.updates.total import Finest, Total
from anabranch.updates.wire import unpack

__all__ = ["Preparation", "PreparationStopped"]

_POLL = 0.5
_TOLD: Final = 5
_JOINED = 100
"""Stages of sites that came later, counted on from here: no task has two meanings."""


class PreparationStopped(Exception):  # noqa: N818  # nothing went wrong
    """The run was stopped or drained before its first round; what was answered is kept."""


class EquippingRuntime(Runtime, Protocol):
    """A runtime that tells its clients what the contract leaves open."""

    def equip(self, content: bytes) -> None:
        """From now on tasks refer to this equipment (`Equipment` as JSON)."""
        ...


@dataclass
class Preparation:
    """Gathers what one run needs before its first round.

    Attributes:
        plan: servable.
        run: its id.
        names: of its clients.
        folder: where what was gathered is kept.
        patience: seconds that a stage waits for sites; then those that answered must do.
        stopped: asked while waiting.
        begun: whether the run's first record is durable. Before that, what the folder holds is
            gathered once more (from the answers at hand), because the record must tell of it.
        faults: told about every step that touches the disk (tests).
        store: folder of the store, in which the privacy ledgers lie.
    """

    plan: Plan
    run: str
    names: tuple[str, ...]
    folder: Path
    patience: float = 3600.0
    stopped: Callable[[], bool] = lambda: False
    begun: bool = True
    faults: Faults = no_faults
    store: Path = Path("runs")
    _releases: list[StatisticRelease] = field(default_factory=list)
    _declined: list[int] = field(default_factory=list)

    def prepared(self, runtime: EquippingRuntime) -> Prepared:
        """Plan, sizes and program; clients are asked at most once, also over restarts.

        Raises:
            AnabranchError: AB-766 too few sites answered, or what they say does not go together;
                AB-1xx to AB-4xx the plan does not fit the data.
            PreparationStopped: it was stopped.
        """
        if self.plan.data.source not in OWN_SOURCES:
            return self._public(runtime)
        equipment, members = self._kept() if self.begun else (None, None)
        if equipment is None or members is None:
            equipment, members = self._gathered(runtime)
        elif len(members.names) < len(self.names):
            members = self._joined(runtime, equipment, members)
        self._publish(runtime, equipment)
        return self._assembled(equipment, members)

    def kept(self) -> Prepared | None:
        """What an earlier preparation gathered, as `audit` needs it; None when there was none."""
        equipment, members = self._kept()
        if equipment is None or members is None:
            return None
        return self._assembled(equipment, members)

    def _public(self, runtime: EquippingRuntime) -> Prepared:
        """A named source: both ends load it, and nobody needs to tell anything."""
        require_statistics(self.plan, needed=False)
        prepared = prepare(self.plan)
        federation = prepared.federation
        equipment = Equipment(
            input_shape=federation.input_shape,
            classes=federation.classes,
            tokens=len(federation.vocabulary),
        )
        self._publish(runtime, equipment)
        return prepared

    # Asking --------------------------------------------------------------------------------

    def _gathered(self, runtime: EquippingRuntime) -> tuple[Equipment, Members]:
        schema = self.plan.data.table
        if schema is not None and not self._noisy:
            require_open_statistics(self.plan, ("column statistics of training rows",))
        require_statistics(self.plan, needed=schema is not None)
        if schema is not None and self._noisy:
            require_bounds(schema)
        self._publish(runtime, Equipment(stage="examples", table=schema))
        answers = self._ask(runtime, 1, DESCRIPTION)
        members = Members.of(self.names, answers)
        equipment = self._sized(answers, schema)
        if schema is not None and self._noisy:
            equipment = self._fitted_noisily(runtime, schema, equipment, members)
        elif schema is not None:
            equipment = self._fitted(runtime, schema, equipment)
        self._keep(equipment, members)
        return equipment, members

    def _joined(self, runtime: EquippingRuntime, equipment: Equipment, members: Members) -> Members:
        """Sites that came with an amendment tell their sizes; the preprocessing stays as it was."""
        known, schema = len(members.names), self.plan.data.table
        self._publish(runtime, Equipment(stage="examples", table=schema))
        new = tuple(range(known, len(self.names)))
        answers = self._ask(runtime, _JOINED + known, DESCRIPTION, new, needed=0)
        told = Members.of(self.names, answers)
        joined = Members(names=self.names, counts=(*members.counts, *told.counts[known:]))
        self._keep(equipment, joined)
        return joined

    @property
    def _noisy(self) -> bool:
        """Whether the promise pays for noise on statistics."""
        return self.plan.privacy is not None and self.plan.privacy.statistics_share > 0

    @property
    def _rules(self) -> PreprocessRules:
        data = self.plan.data
        return PreprocessRules(
            min_count=data.min_count, indicators=data.indicators, vocabulary=data.vocabulary
        )

    def _fitted_noisily(
        self, runtime: EquippingRuntime, schema: DataSchema, sized: Equipment, members: Members
    ) -> Equipment:
        """Preprocessing from noisy statistics, which the run's ledger holds."""
        promise = checked_promise(
            self._assembled(_ready(sized, schema, neutral(schema, self._rules)), members)
        )
        with PopulationLedger.open(self.store / LEDGERS, promise.opened) as population:
            ledger = population.begin(promise.allotted(self.run, self.plan.contract_digest))
            if isinstance(runtime, ShowsLedger):
                runtime.show_ledger(population.path)
            budget = StatisticsBudget.of(self.plan, schema, ledger, self.names)
            try:
                budget.before()
                self._publish(runtime, sized.replace(stage="columns", table=schema))
                try:
                    answers = self._ask(runtime, 3, budget.sections)
                finally:
                    budget.declined([self.names[client] for client in self._declined])
                total = self._total(answers, budget.sections)
                fitted, release = budget.fitted(schema, total, self._rules)
            except AnabranchError as error:
                ledger.finish(error.code)  # nothing follows: the rest returns to the population
                raise
            self._releases.append(release)
        return _ready(sized, schema, fitted)

    def _fitted(self, runtime: EquippingRuntime, schema: DataSchema, sized: Equipment) -> Equipment:
        rules = self._rules
        if schema.open:
            self._publish(runtime, sized.replace(stage="codes", table=schema))
            sections = vocabulary_sections(schema, rules.vocabulary)
            total = self._total(self._ask(runtime, 2, sections), sections)
            schema = schema.with_codes(fit_vocabulary(schema, total, rules.vocabulary))
            self._releases.append(StatisticRelease("vocabulary of columns without codes", total))
        self._publish(runtime, sized.replace(stage="columns", table=schema))
        sections = statistic_sections(schema)
        total = self._total(self._ask(runtime, 3, sections), sections)
        total = withhold_small(schema, total, rules.min_count)
        fitted = fit_preprocessor(schema, total, rules)
        self._releases.append(
            StatisticRelease("column statistics of training rows", total, fitted.withheld)
        )
        return _ready(sized, schema, fitted)

    def _ask(
        self,
        runtime: EquippingRuntime,
        stage: int,
        sections: Sections,
        clients: Sequence[int] | None = None,
        needed: int | None = None,
    ) -> dict[int, Update]:
        """The answers of a stage by client number; of all clients unless some are named."""
        clients = tuple(range(len(self.names)) if clients is None else clients)
        task = task_name(self.run, TaskKind.STATISTICS, stage)
        fold = FoldPlan(sections, len(clients))
        work = Work(
            TaskKind.STATISTICS, 0, clients, {}, fold, Finest.INDIVIDUALS, task=task, draw=stage
        )
        runtime.submit(work)
        until, answers, fates = time.monotonic() + self.patience, {}, dict[int, Outcome]()
        while len(fates) < len(clients) and time.monotonic() < until and not self.stopped():
            for event in runtime.poll(_POLL):
                if isinstance(event, Payload):
                    answers[event.client] = self._update(event, sections)
                elif isinstance(event, Outcome):
                    fates[event.client] = event
        runtime.abandon(task)
        self._declined = declined_of(fates.values())
        if self.stopped():
            raise PreparationStopped
        good = {client: update for client, update in answers.items() if update is not None}
        if needed is None or len(good) < needed:
            self._require_enough(len(good), fates)
        return good

    def _update(self, event: Payload, sections: Sections) -> Update | None:
        name = self.names[event.client]
        try:
            update = unpack(event.content, sections, name)
            Accumulator(FoldPlan(sections, len(self.names))).add(update, name)
        except AnabranchError:  # not acceptable: the site counts as one that did not answer
            return None
        return update

    def _require_enough(self, answered: int, fates: dict[int, Outcome]) -> None:
        needed = self.plan.rounds.needed(len(self.names))
        if answered >= needed:
            return
        troubles = [
            f"{self.names[client]}: {outcome.detail}"
            for client, outcome in sorted(fates.items())
            if outcome.fate is not Fate.MERGED and outcome.detail
        ]
        told = "; ".join(troubles[:_TOLD])
        raise AnabranchError(
            "AB-766",
            f"{answered} of {len(self.names)} sites told what the preparation asks "
            f"({needed} are needed). {told}".rstrip(),
            fix="see which sites are there (`anabranch status`) and what they report, then submit "
            "the plan again.",
            kept="No round was begun.",
        )

    def _total(self, answers: dict[int, Update], sections: Sections) -> Total:
        fold = Accumulator(FoldPlan(sections, len(self.names)))
        for client, update in answers.items():
            fold.add(update, self.names[client])
        return fold.total()

    # What follows --------------------------------------------------------------------------

    def _sized(self, answers: dict[int, Update], schema: DataSchema | None) -> Equipment:
        shapes = {shape_of(update) for update in answers.values()}
        if len(shapes) > 1:
            raise AnabranchError(
                "AB-766",
                f"the sites have examples of {len(shapes)} different shapes: "
                f"{', '.join(str(shape) for shape in sorted(shapes))}.",
                fix="agree on one shape, or describe the columns in the contract (data.table).",
                kept="No round was begun.",
            )
        classes = max(int(update.scalars["classes"]) for update in answers.values())
        if schema is not None:
            classes = schema.target.count
        return Equipment(table=schema, input_shape=next(iter(shapes)), classes=classes)

    def _assembled(self, equipment: Equipment, members: Members) -> Prepared:
        federation = members.federation(self.plan, equipment)
        check_against_fleet(self.plan, len(federation))
        program = program_of(self.plan, federation, None)
        check_against_layout(self.plan, program.learner.layout)
        check_against_data(self.plan, federation, program.learner)
        assert federation.card is not None
        loaded = LoadedData(
            federation,
            federation.card,
            tuple(self._releases),
            equipment.preprocessor,
            equipment.table,
        )
        return Prepared(self.plan, federation, loaded, program)

    def _publish(self, runtime: EquippingRuntime, equipment: Equipment) -> None:
        runtime.equip(equipment.model_dump_json().encode())

    # On the disk ---------------------------------------------------------------------------

    def _kept(self) -> tuple[Equipment | None, Members | None]:
        try:
            equipment = (self.folder / "equipment.json").read_bytes()
            members = (self.folder / "members.json").read_bytes()
        except FileNotFoundError:
            return None, None
        return Equipment.model_validate_json(equipment), Members.model_validate_json(members)

    def _keep(self, equipment: Equipment, members: Members) -> None:
        with explained(self.folder, "writing what the sites told"):
            make_directory(self.folder, "equipment", self.faults)
            for name, value in (("members", members), ("equipment", equipment)):
                content = value.model_dump_json().encode()
                write_durably(self.folder / f"{name}.json", content, "equipment", self.faults)


def _ready(sized: Equipment, schema: DataSchema, fitted: Preprocessor) -> Equipment:
    shape = (len(fitted.features),)
    return sized.replace(stage="ready", table=schema, preprocessor=fitted, input_shape=shape)
