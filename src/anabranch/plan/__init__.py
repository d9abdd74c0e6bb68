"""The plan: what a run needs, as a file or as frozen values; its algebra and its words.

The contract part says what is learnt, from which data, and how updates are merged; it is equal for
all and has a digest. The runtime part says how it is run here.
"""

from anabranch.plan.algebra import Refusal, Verdict, judge, require_accepted
from anabranch.plan.check import (
    Finding,
    PlanReport,
    check,
    check_against_data,
    check_against_layout,
)
from anabranch.plan.document import PlanDocument
from anabranch.plan.evaluation import EvaluationPlan, StopPlan
from anabranch.plan.explain import Facts, explain
from anabranch.plan.fleet import check_against_fleet
from anabranch.plan.limits import Limits
from anabranch.plan.load import (
    changed,
    dump_toml,
    load_plan,
    origins,
    parse_plan,
    plan_from,
    plan_of,
    read_plan,
    require_servable,
)
from anabranch.plan.migrate import PLAN_SCHEMA, migrate
from anabranch.plan.overrides import apply_overrides
from anabranch.plan.reference import json_schema, reference_page, schema_json
from anabranch.plan.rounds import ClientsPlan, RoundsPlan
from anabranch.plan.runtime import RuntimePlan
from anabranch.plan.schema import STAGES, AggregationPlan, Plan, UpdatesPlan
from anabranch.plan.trust import trust_line

__all__ = [
    "PLAN_SCHEMA",
    "STAGES",
    "AggregationPlan",
    "ClientsPlan",
    "EvaluationPlan",
    "Facts",
    "Finding",
    "Limits",
    "Plan",
    "PlanDocument",
    "PlanReport",
    "Refusal",
    "RoundsPlan",
    "RuntimePlan",
    "StopPlan",
    "UpdatesPlan",
    "Verdict",
    "apply_overrides",
    "changed",
    "check",
    "check_against_data",
    "check_against_fleet",
    "check_against_layout",
    "dump_toml",
    "explain",
    "json_schema",
    "judge",
    "load_plan",
    "migrate",
    "origins",
    "parse_plan",
    "plan_from",
    "plan_of",
    "read_plan",
    "reference_page",
    "require_accepted",
    "require_servable",
    "schema_json",
    "trust_line",
]
