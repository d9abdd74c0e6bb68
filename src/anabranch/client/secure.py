"""A client's side of secure sums: the terms of its plan, and its session beside its program."""

from __future__ import annotations

import math
from hashlib import sha256

import numpy as np

from anabranch.algorithms.base import Broadcast
from anabranch.client.program import ClientProgram
from anabranch.client.task import TaskKind
from anabranch.plan.schema import Plan
from anabranch.privacy.mechanisms.distributed import DistributedNoise
from anabranch.privacy.secure_aggregation.terms import Shape, Terms

__all__ = ["broadcast_digest", "terms_of"]


def broadcast_digest(broadcast: Broadcast) -> bytes:
    """SHA-256 of everything that goes down: names, types, lengths and bytes."""
    digest = sha256(b"anabranch broadcast")
    for name in sorted(broadcast):
        vector = np.ascontiguousarray(broadcast[name])
        digest.update(f"/{name}/{vector.dtype.str}/{vector.size}/".encode())
        digest.update(vector.data)
    return digest.digest()


def terms_of(plan: Plan, program: ClientProgram) -> Terms:
    """How the plan makes sums; equal at every client and at the coordinator.

    Raises:
        ValueError: the plan has no table ``[secure_aggregation]``.
    """
    table = plan.secure_aggregation
    if table is None:
        raise ValueError("the plan has no secure aggregation")
    mechanism = program.mechanism
    noisy = isinstance(mechanism, DistributedNoise)
    norm = min((s.contract().norm_bound for s in plan.updates.stages), default=math.inf)
    train = Shape(
        sections=program.sections,
        bound=min(table.bound if table.bound is not None else math.inf, norm),
        weight_bound=program.weight.bound,
        norm_bound=norm if mechanism is None else math.inf,
        wraps=noisy,
        exact=mechanism is not None and not noisy,
    )
    evaluate = Shape(sections=program.metrics.sections())
    return Terms(
        plan_digest=bytes.fromhex(plan.contract_digest),
        shapes={TaskKind.TRAIN.value: train, TaskKind.EVALUATE.value: evaluate},
        bits=mechanism.bits if isinstance(mechanism, DistributedNoise) else table.bits,
        corrupt_share=table.corrupt_share,
        dropout_share=table.dropout_share,
        minimum=table.minimum,
        complete_below=table.complete_below,
        attempts=table.attempts,
        unopened=table.unopened,
        draw=table.drawn,
        hybrid=table.hybrid,
    )
