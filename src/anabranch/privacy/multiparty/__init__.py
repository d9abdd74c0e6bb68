"""Small computations on shared secrets: sharing, sums, products, comparisons, the largest of many.

Numbers are integers modulo p = 2^61 - 1 in NumPy arrays. Two ways to share: additive (all parties
needed) and Shamir (any t of n). On top of additive shares: Beaver products, fixed-point numbers,
comparison, argmax, sums and histograms. All parties are played by one process here: the messages
are arrays, and whoever carries them decides where the parties are. Against parties that follow the
protocol and collude below the threshold; ``Triples.checked`` also notices triples that are wrong.
"""

from anabranch.privacy.multiparty.additive import add_reveal, add_share
from anabranch.privacy.multiparty.argmax import argmax
from anabranch.privacy.multiparty.beaver import Dealer, Triples, multiply
from anabranch.privacy.multiparty.compare import BitDealer, is_negative
from anabranch.privacy.multiparty.field import PRIME, Elements, Source, random_elements
from anabranch.privacy.multiparty.fixed import FixedPointField, truncate
from anabranch.privacy.multiparty.shamir import shamir_reveal, shamir_share
from anabranch.privacy.multiparty.sums import secure_histogram, secure_sum

__all__ = [
    "PRIME",
    "BitDealer",
    "Dealer",
    "Elements",
    "FixedPointField",
    "Source",
    "Triples",
    "add_reveal",
    "add_share",
    "argmax",
    "is_negative",
    "multiply",
    "random_elements",
    "secure_histogram",
    "secure_sum",
    "shamir_reveal",
    "shamir_share",
    "truncate",
]
