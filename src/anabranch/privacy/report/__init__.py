"""The privacy report of a run: generated from its ledger, in the order of NIST SP 800-226. Pure."""

from anabranch.privacy.report.facts import MechanismKind, RoundFacts, RunFacts
from anabranch.privacy.report.items import Item, Report, Rows, report_of
from anabranch.privacy.report.sentence import Claim, claim_sentence

__all__ = [
    "Claim",
    "Item",
    "MechanismKind",
    "Report",
    "RoundFacts",
    "Rows",
    "RunFacts",
    "claim_sentence",
    "report_of",
]
