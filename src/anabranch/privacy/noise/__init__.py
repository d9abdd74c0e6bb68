"""Discrete noise from a cryptographic generator, by tables with fixed work, its bias known.

Nothing in this room, nor in `anabranch.privacy.mechanisms`, draws from NumPy or ``random``.
"""

from anabranch.privacy.noise.gaussian import DiscreteGaussian
from anabranch.privacy.noise.skellam import Skellam
from anabranch.privacy.noise.stream import KEY_BYTES, SecretStream, derived_key

__all__ = [
    "KEY_BYTES",
    "DiscreteGaussian",
    "SecretStream",
    "Skellam",
    "derived_key",
]
