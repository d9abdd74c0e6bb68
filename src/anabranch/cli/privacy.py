"""`anabranch privacy`: what noisy releases cost, how much noise a budget needs, what was spent."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli import ledgers
from anabranch.cli.options import AsJson
from anabranch.cli.output import print_json, print_table, say
from anabranch.cli.privacy_plan import plan_privacy
from anabranch.cli.privacy_report import report
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch.privacy.accounting import Account
    from anabranch.privacy.events import GaussianEvent, Relation, Sampling

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Privacy: epsilon and noise of a plan, budgets of populations."
)
app.command("status")(ledgers.status)
app.command("verify")(ledgers.verify)
app.command("export")(ledgers.export)
app.command("plan")(plan_privacy)
app.command("report")(report)


class SamplingChoice(StrEnum):
    """The sampling that is claimed."""

    NONE = "none"
    POISSON = "poisson"
    WITHOUT_REPLACEMENT = "without-replacement"


class RelationChoice(StrEnum):
    """When two populations are neighbours."""

    ADD_OR_REMOVE = "add-or-remove"
    REPLACE_ONE = "replace-one"
    ZERO_OUT = "zero-out"


Rounds = Annotated[int, typer.Option("--rounds", metavar="N", help="Releases in the whole run.")]
Delta = Annotated[float, typer.Option("--delta", help="Probability that the bound fails.")]
Rate = Annotated[
    float | None,
    typer.Option("--sampling-rate", metavar="Q", help="Cohort divided by population, in (0, 1]."),
]
Claimed = Annotated[
    SamplingChoice,
    typer.Option(
        "--sampling",
        help="Sampling that is claimed; it needs evidence that the draw is random and secret.",
    ),
]
Neighbours = Annotated[
    RelationChoice | None,
    typer.Option(
        "--relation",
        help="Neighbouring relation (default: add-or-remove; replace-one for a fixed cohort).",
    ),
]
Population = Annotated[
    int | None, typer.Option("--population", metavar="N", help="People that are protected.")
]
Cohort = Annotated[
    int | None, typer.Option("--cohort", metavar="M", help="(Expected) size of a round's cohort.")
]
Cap = Annotated[
    int,
    typer.Option("--cap", metavar="M", help="Largest cohort under Poisson sampling (0: none)."),
]
Grid = Annotated[
    float | None,
    typer.Option("--grid", metavar="H", help="Fixed grid of the privacy loss, to repeat a number."),
]


@app.command("epsilon")
def epsilon(
    noise_multiplier: Annotated[
        float,
        typer.Option("--noise-multiplier", metavar="Z", help="Noise deviation / clip norm."),
    ],
    rounds: Rounds,
    delta: Delta,
    sampling_rate: Rate = None,
    sampling: Claimed = SamplingChoice.NONE,
    relation: Neighbours = None,
    population: Population = None,
    cohort: Cohort = None,
    cap: Cap = 0,
    grid: Grid = None,
    as_json: AsJson = False,
) -> None:
    """Epsilon of a run: the claim (an upper bound), a lower bound, and by RDP."""
    from anabranch.privacy.accounting import account, check_delta
    from anabranch.privacy.events import GaussianEvent

    check_delta(delta)
    warnings = _warnings(delta, population)
    rate = _rate(sampling_rate, population, cohort)
    claimed = _sampling(sampling, rate, cap, population)
    event = GaussianEvent(
        noise_multiplier, rounds, claimed, _relation(relation, sampling), cohort=cohort or 0
    )
    priced = account([event], delta, step=grid)
    _print(event, priced, [*warnings, *_unclaimed(sampling, rate)], as_json=as_json)


@app.command("calibrate")
def calibrate_noise(
    epsilon: Annotated[float, typer.Option("--epsilon", help="Budget of the whole run.")],
    delta: Delta,
    rounds: Rounds,
    population: Population = None,
    cohort: Cohort = None,
    sampling_rate: Rate = None,
    sampling: Claimed = SamplingChoice.NONE,
    cap: Cap = 0,
    participations: Annotated[
        int | None,
        typer.Option(
            "--participations",
            metavar="K",
            help="Most releases that any one person takes part in (enforced), without sampling.",
        ),
    ] = None,
    relation: Neighbours = None,
    as_json: AsJson = False,
) -> None:
    """Least noise multiplier that keeps a run within epsilon."""
    from anabranch.privacy.accounting import account, calibrate, check_delta, check_epsilon
    from anabranch.privacy.events import GaussianEvent

    check_epsilon(epsilon)
    check_delta(delta)
    warnings = _warnings(delta, population)
    rate = _rate(sampling_rate, population, cohort)
    claimed = _sampling(sampling, rate, cap, population)
    counted = _participations(participations, rounds, sampling)
    wanted = GaussianEvent(1.0, counted, claimed, _relation(relation, sampling), cohort=cohort or 0)
    event = calibrate(wanted, epsilon, delta)
    notes = [*warnings, *_unclaimed(sampling, rate if participations is None else None)]
    _print(event, account([event], delta), notes, as_json=as_json, budget=epsilon)


def _warnings(delta: float, population: int | None) -> list[str]:
    from anabranch.privacy.accounting import population_warning

    if population is None:
        return []
    if population < 1:
        raise _usage("the population is empty", "give the number of people that are protected.")
    warning = population_warning(delta, population)
    return [warning] if warning else []


def _rate(given: float | None, population: int | None, cohort: int | None) -> float | None:
    if given is not None:
        return given
    if population is None or cohort is None:
        return None
    if not 0 < cohort <= population:
        raise _usage(
            f"a cohort of {cohort} out of {population} people is impossible",
            "give a cohort of at least 1 and at most the population.",
        )
    return cohort / population


def _sampling(
    choice: SamplingChoice, rate: float | None, cap: int, population: int | None
) -> Sampling:
    from anabranch.privacy.events import FixedSizeSampling, NoSampling, PoissonSampling

    if cap and choice is not SamplingChoice.POISSON:
        raise _usage(
            "--cap belongs to Poisson sampling", "claim --sampling poisson, or drop --cap."
        )
    if choice is SamplingChoice.NONE:
        if rate is not None:
            PoissonSampling(rate)  # a rate that makes no sense is refused, not ignored
        return NoSampling()
    if rate is None:
        raise _usage(
            f"--sampling {choice.value} needs a rate",
            "give --sampling-rate, or --population and --cohort.",
        )
    if choice is SamplingChoice.POISSON:
        return PoissonSampling(rate, cap, population or 0)
    return FixedSizeSampling(rate)


def _relation(choice: RelationChoice | None, sampling: SamplingChoice) -> Relation:
    from anabranch.privacy.events import Relation

    if choice is not None:
        return Relation(choice.value)
    fixed = sampling is SamplingChoice.WITHOUT_REPLACEMENT
    return Relation.REPLACE_ONE if fixed else Relation.ADD_OR_REMOVE


def _participations(given: int | None, rounds: int, sampling: SamplingChoice) -> int:
    if given is None:
        return rounds
    if sampling is not SamplingChoice.NONE:
        raise _usage(
            "--participations and an amplifying --sampling exclude each other",
            "cap the participations, or claim the sampling.",
        )
    if not 1 <= given <= rounds:
        raise _usage(
            f"{given} participations in {rounds} rounds are impossible",
            "give at least 1 and at most the number of rounds.",
        )
    return given


def _unclaimed(sampling: SamplingChoice, rate: float | None) -> list[str]:
    if sampling is not SamplingChoice.NONE or rate is None or rate == 1:
        return []
    return [
        "no sampling is claimed: everybody counts as present in every round. State --sampling if "
        "the draw is random and secret."
    ]


def _usage(what: str, fix: str) -> AnabranchError:
    return AnabranchError("AB-913", f"{what}.", fix=fix)


def _print(
    event: GaussianEvent,
    priced: Account,
    warnings: list[str],
    *,
    as_json: bool,
    budget: float | None = None,
) -> None:
    if as_json:
        print_json(_as_json(event, priced, warnings, budget))
        return
    releases = "1 release" if event.rounds == 1 else f"{event.rounds} releases"
    say(
        f"{releases}, noise multiplier {event.noise:.6g}, sampling {event.sampling}, "
        f"relation {event.relation.value}, delta {priced.delta:g}"
    )
    rows = [
        ("claim (upper bound)", f"{priced.claim:.6g}"),
        ("lower bound", f"{priced.lower_bound:.6g}"),
        ("Rényi (second opinion)", f"{priced.rdp:.6g}"),
    ]
    print_table(("epsilon", "value"), rows)
    for warning in warnings:
        say(f"Note: {warning}")


def _as_json(
    event: GaussianEvent, priced: Account, warnings: list[str], budget: float | None
) -> dict[str, object]:
    wanted: dict[str, object] = {} if budget is None else {"budget": budget}
    return {
        **wanted,
        "noise_multiplier": event.noise,
        "claim": _finite(priced.claim),
        "lower_bound": _finite(priced.lower_bound),
        "rdp": _finite(priced.rdp),
        "delta": priced.delta,
        "rounds": event.rounds,
        "sampling": str(event.sampling).split("(")[0],
        "sampling_rate": getattr(event.sampling, "rate", None),
        "cap": getattr(event.sampling, "cap", 0),
        "relation": event.relation.value,
        "sensitivity": event.relation.sensitivity,
        "unit": event.unit.value,
        "exact": priced.exact,
        "grid": priced.step,
        "refinement_change": priced.change,
        "warnings": warnings,
    }


def _finite(value: float) -> float | None:
    return value if value != float("inf") else None
