"""The plan's table ``[secure_aggregation]``: the coordinator sees sums, and no client's update."""

from __future__ import annotations

from pydantic import Field

from anabranch.values import Value

__all__ = ["SecureAggregationPlan"]


class SecureAggregationPlan(Value):
    """Updates and metrics are added up under masks (SecAgg+, Bell et al. 2020).

    A round then takes five more messages of a client. Everything here is part of the contract:
    clients refuse sums that are made otherwise.
    """

    bits: int = Field(default=32, ge=12, le=64, json_schema_extra={"unit": "bits a coordinate"})
    """Size of the modulus. With 64 the model is that of the plan without masks, bit for bit; 20 to
    32 send less and round more coarsely."""
    bound: float | None = Field(
        default=None, gt=0, json_schema_extra={"unit": "largest absolute coordinate"}
    )
    """Coordinates of an update beyond it are cut off. The smaller, the finer the steps. Left out:
    the norm of the clip stage, which no coordinate can exceed."""
    corrupt_share: float = Field(
        default=0.1, ge=0, lt=1 / 3, json_schema_extra={"unit": "fraction of those asked"}
    )
    """Clients that may work together with a lying coordinator without it seeing an update."""
    dropout_share: float = Field(
        default=0.1, ge=0, lt=1 / 2, json_schema_extra={"unit": "fraction of those asked"}
    )
    """Clients that may vanish in the middle of a round without the round being lost."""
    minimum: int = Field(default=3, ge=2, json_schema_extra={"unit": "clients"})
    """Fewest clients whose sum is opened. The other members of a sum of n see what n - 1 of them
    did together, so two hide nothing from each other."""
    attempts: int = Field(default=3, ge=1, le=255, json_schema_extra={"unit": "tries a round"})
    """How often keys are exchanged anew when too many clients vanish before they train."""
    unopened: int = Field(default=0, ge=0, le=1000, json_schema_extra={"unit": "clients"})
    """Clients that may vanish between their keys and their nonce where the graph is sparse (100
    clients and more). More neighbours make up for what that lets a coordinator choose."""
    drawn: int = Field(default=0, ge=0, json_schema_extra={"unit": "clients"})
    """Clients that take part, drawn by everybody's nonces from those that sent keys; 0 takes all.
    A coordinator that chooses whom to ask can then not choose who sits together in a sum."""
    complete_below: int = Field(default=100, ge=100, json_schema_extra={"unit": "clients"})
    """With fewer clients everybody shares masks with everybody. Raise it where the coordinator may
    choose who drops out."""
    hybrid: bool = False
    """Agree on keys by X25519 and ML-KEM-768 together, so that masks recorded today stay closed to
    a quantum computer."""
    stage_seconds: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "seconds"})
    """Longest time for one exchange of messages before and after training. Left out: half a minute
    where clients are elsewhere, three on a Flower fleet; simulated ones are waited for."""
