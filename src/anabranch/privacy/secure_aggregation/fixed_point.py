"""Real vectors as integers modulo 2^b and back, with the check that no sum can wrap around.

A coordinate x becomes round(x * scale) modulo 2^b, negative numbers from the top. The sum of n
vectors whose coordinates stay within +-bound is right if n * ceil(bound * scale) < 2^(b-1). That is
checked before a round, from public numbers; a sum that wrapped could not be told from a right one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.refusals import bad_parameters
from anabranch.privacy.secure_aggregation.streams import Lanes, lane_dtype

__all__ = ["FixedPoint"]


@dataclass(frozen=True)
class FixedPoint:
    """How coordinates are counted; public, and equal for all clients of a round.

    Attributes:
        scale: integers per unit; a coordinate is rounded to the nearest 1 / scale.
        bound: largest absolute coordinate that a client may send.
        bits: b of the modulus 2^b, 8 to 64.
        wraps: whether clients send residues, whose sum means something modulo 2^b alone. Whoever
            makes them answers for the modulus (noise from clients does).
    """

    scale: float
    bound: float
    bits: int
    wraps: bool = False

    def __post_init__(self) -> None:
        lane_dtype(self.bits)
        usable = math.isfinite(self.scale) and math.isfinite(self.bound)
        if not (usable and self.scale > 0 and self.bound > 0):
            raise bad_parameters(f"Scale {self.scale} and bound {self.bound} must be above 0.")
        if self.scale * self.bound >= 2.0**52:
            raise bad_parameters("Scale times bound must stay below 2^52, exact in float64.")

    @property
    def largest(self) -> int:
        """The largest absolute integer of one client."""
        if self.wraps:
            return 1 << (self.bits - 1)
        return math.ceil(self.bound * self.scale)

    @property
    def most_clients(self) -> int:
        """How many clients can be summed without wrapping around.

        >>> FixedPoint(scale=100.0, bound=1.0, bits=16).most_clients
        327
        """
        if self.wraps:
            return 1 << 32
        return ((1 << (self.bits - 1)) - 1) // self.largest

    def check(self, clients: int) -> None:
        """Refuse a round whose sum could wrap around.

        Raises:
            AnabranchError: AB-951 if the modulus is too small for ``clients``.
        """
        if clients <= self.most_clients:
            return
        needed = (clients * self.largest).bit_length() + 1
        raise AnabranchError(
            "AB-951",
            f"A modulus of {self.bits} bits holds the sum of {self.most_clients} clients, "
            f"{clients} were asked.",
            fix=f"use {needed} bits, a smaller scale or bound, or fewer clients.",
            kept="The round was not started.",
        )

    def encode(self, vector: NDArray[np.floating]) -> Lanes:
        """One client's vector as integers modulo 2^bits.

        Raises:
            AnabranchError: AB-964 if a coordinate is not finite or exceeds the bound.
        """
        counted = np.asarray(vector, np.float64)
        # A comparison with NaN is false, so this refuses it too.
        if not bool(np.all(np.abs(counted) <= self.bound)):
            raise AnabranchError(
                "AB-964",
                f"A coordinate is not finite or exceeds the public bound {self.bound}.",
                fix="clip the vector before it is masked.",
                kept="Nothing was sent.",
            )
        whole = np.rint(counted * self.scale).astype(np.int64)
        dtype = lane_dtype(self.bits)
        modulus = dtype.type((1 << self.bits) - 1)
        lanes: Lanes = whole.view(np.uint64).astype(dtype) & modulus
        return lanes

    def decode(self, total: Lanes) -> NDArray[np.float64]:
        """The sum of the clients' vectors, from the sum of their integers modulo 2^bits."""
        spare = np.uint64(64 - self.bits)
        # Shifted to the top and back as a signed number: the sign bit is extended.
        high = (total.astype(np.uint64) << spare).view(np.int64)
        return (high >> np.int64(64 - self.bits)).astype(np.float64) / self.scale
