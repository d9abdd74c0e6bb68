"""What noisy releases cost: upper bound (the claim), lower bound, second opinion, calibration.

Nothing here knows a run or a store: events go in, numbers come out. The package dp-accounting
(``pip install "anabranch[privacy]"``) is imported when the first number is asked for.
"""

from anabranch.privacy.accounting.calibration import calibrate
from anabranch.privacy.accounting.claims import (
    Account,
    account,
    check_delta,
    check_epsilon,
    claim,
    population_warning,
)
from anabranch.privacy.accounting.ftrl import (
    PrefixMechanism,
    banded_toeplitz,
    binary_tree,
    independent_noise,
    optimal_toeplitz,
)
from anabranch.privacy.accounting.gaussian import exact_epsilon, exact_noise
from anabranch.privacy.accounting.pld import Bound
from anabranch.privacy.accounting.rdp import rdp_epsilon

__all__ = [
    "Account",
    "Bound",
    "PrefixMechanism",
    "account",
    "banded_toeplitz",
    "binary_tree",
    "calibrate",
    "check_delta",
    "check_epsilon",
    "claim",
    "exact_epsilon",
    "exact_noise",
    "independent_noise",
    "optimal_toeplitz",
    "population_warning",
    "rdp_epsilon",
]
