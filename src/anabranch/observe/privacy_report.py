"""The privacy report of a stored run: the facts from its store, the numbers from its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.coordinator.store.records import Json
from anabranch.errors import AnabranchError
from anabranch.observe.pages import Page, PageSection, PageTable
from anabranch.observe.reading import RunSource, read_run
from anabranch.observe.view import RunView, overall
from anabranch.plan import Plan
from anabranch.plan.privacy import AdaptiveClip, LocalDpSgd, PrivacyPlan
from anabranch.privacy.events import Unit
from anabranch.privacy.report import Item, Report, RoundFacts, RunFacts, report_of

__all__ = ["privacy_report", "report_document", "report_page"]


def privacy_report(
    store: RunSource, run_id: str, ledgers: Path, *, simulated: bool = True
) -> Report:
    """The report of a run.

    Args:
        store: the run store.
        run_id: of the run.
        ledgers: folder of the populations' ledgers.
        simulated: whether all clients were in one place.

    Raises:
        AnabranchError: AB-608 no such run; AB-922 its population has no ledger there; AB-914 the
            ledger is damaged; AB-927 the run promises nothing.
    """
    view = read_run(store, run_id)
    plan = Plan.model_validate(store.run(run_id).plan)
    if plan.privacy is None:
        raise _nothing(run_id, "its plan has no [privacy]")
    with PopulationLedger.existing(ledgers, plan.privacy.population) as ledger:
        balance, last = ledger.balance(), ledger.head
    if run_id not in balance.runs:
        raise _nothing(run_id, f"it is not in the ledger of {plan.privacy.population!r}")
    opened = balance.opened
    units_are_clients = opened.unit in (Unit.CLIENT, Unit.SITE)
    clients = opened.size if units_are_clients and opened.size else view.clients
    facts = _facts(view, plan, plan.privacy, clients)
    facts = replace(facts, simulated=simulated, metrics_without=_without(store, view, plan))
    return report_of(balance, facts, (last.sequence, last.digest))


def _nothing(run_id: str, why: str) -> AnabranchError:
    return AnabranchError(
        "AB-927",
        f"run {run_id!r} promises no privacy: {why}.",
        fix="name a run whose plan has [privacy], and the store in which it ran.",
    )


def _facts(view: RunView, plan: Plan, privacy: PrivacyPlan, clients: int) -> RunFacts:
    mechanism, clip = privacy.mechanism, privacy.mechanism.clip
    secure = plan.secure_aggregation
    participations = getattr(mechanism, "participations", None) or 0
    separation = getattr(mechanism, "separation", None)
    if mechanism.kind == "ftrl" and separation is None:
        separation = max(1, plan.rounds.count // participations)
    provided = (
        (secure.corrupt_share, secure.dropout_share)
        if secure is not None
        else (getattr(mechanism, "corrupt_share", 0.0), getattr(mechanism, "dropout_share", 0.0))
    )
    words = (
        f"adaptive, quantile {clip.quantile:g} of the norms, from {clip.initial:g}"
        if isinstance(clip, AdaptiveClip)
        else f"L2 norm {clip.norm:g}, fixed"
    )
    return RunFacts(
        run=view.run_id,
        plan=view.name,
        contract_digest=view.digest,
        trust_line=view.trust_line,
        status=f"{view.status}: {view.reason}" if view.reason else view.status,
        mechanism=mechanism.kind,
        sampling="poisson"
        if isinstance(mechanism, LocalDpSgd)
        else getattr(mechanism, "sampling", "none"),
        selector=plan.selection.kind or type(plan.selection).__name__,
        clients=clients,
        cohort=plan.rounds.wanted(clients) if clients else 0,
        participations=participations,
        separation=separation or 1,
        natural_clients=_natural(view),
        simulated=True,
        secure_aggregation=secure is not None,
        corrupt_share=provided[0],
        dropout_share=provided[1],
        clip=words,
        holdout_from_clients=plan.data.holdout_fraction > 0,
        declared_units=isinstance(mechanism, LocalDpSgd) and mechanism.units is not None,
        unprotected=tuple(r.what for r in view.releases if r.mechanism == "unprotected"),
        metrics=_metrics(view),
        rounds=tuple(
            RoundFacts(r.number, r.cohort, r.contributors, r.outcome) for r in view.rounds
        ),
        versions=tuple(sorted(view.versions.items())),
    )


def _natural(view: RunView) -> bool | None:
    """What the data's card says about the division into clients."""
    for card in view.cards:
        for _, text in card.rows:
            if text.startswith(("natural", "synthetic")):
                return text.startswith("natural")
    return None


def _metrics(view: RunView) -> tuple[tuple[str, float], ...]:
    found = ((name, overall(view.result, name)) for name in sorted(view.result.metrics))
    return tuple((name, value) for name, value in found if value is not None)


def _without(store: RunSource, view: RunView, plan: Plan) -> tuple[tuple[str, float], ...]:
    """Metrics of the newest complete run of the same plan but for [privacy]."""
    wanted = _compared(plan.model_dump(mode="json"))
    for run in store.runs():
        same = run.plan.get("privacy") is None and _compared(run.plan) == wanted
        if same and run.status == "complete" and run.id != view.run_id:
            return _metrics(read_run(store, run.id, clients=False))
    return ()


def _compared(plan: Mapping[str, Json]) -> dict[str, Json]:
    """The parts of a plan that a comparison needs to be equal."""
    keys = ("data", "model", "rounds", "evaluation", "seed")
    return {key: plan.get(key) for key in keys}


def report_document(report: Report) -> dict[str, Json]:
    """The report for programs."""
    return {
        "format": "anabranch privacy report 1",
        "run": report.run,
        "population": report.population,
        "claim": report.sentence,
        "trust_line": report.trust_line,
        "ledger_head": {"sequence": report.head[0], "digest": report.head[1]},
        "items": [_item(item) for item in report.items],
    }


def _item(item: Item) -> dict[str, Json]:
    return {
        "name": item.name,
        "title": item.title,
        "facts": dict(item.facts),
        "tables": [
            {"caption": t.caption, "header": list(t.header), "rows": [list(r) for r in t.rows]}
            for t in item.tables
        ],
        "texts": list(item.texts),
    }


def report_page(report: Report) -> Page:
    """The report for people."""
    sections = tuple(
        PageSection(
            item.name,
            item.title,
            texts=item.texts,
            facts=item.facts,
            tables=tuple(
                PageTable(t.caption, t.header, t.rows, folded=len(t.rows) > 12) for t in item.tables
            ),
        )
        for item in report.items
    )
    sequence, digest = report.head
    return Page(
        title=f"Privacy of run {report.run}",
        trust_line=report.trust_line,
        lead=(report.sentence[0].upper() + report.sentence[1:],),
        sections=sections,
        footer=f"Made from the ledger of population {report.population}, entry {sequence} "
        f"({digest[:16]}…), in the order of NIST SP 800-226.",
    )
