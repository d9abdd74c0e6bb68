"""How the protocol says no: one function per reason, so that every refusal reads the same.

A refusal never changes a state: the caller keeps the state it had, and may go on with it.
"""

from __future__ import annotations

from anabranch.errors import AnabranchError

__all__ = [
    "bad_parameters",
    "bad_signature",
    "foreign_context",
    "invitation_refused",
    "key_list_refused",
    "malformed",
    "no_session",
    "not_held",
    "nonces_refused",
    "older",
    "roster_refused",
    "out_of_order",
    "share_unreadable",
    "shares_refused",
    "survivors_refused",
    "twice",
]

_KEPT = "The message was refused; nothing was revealed."
_SAME = "use the same plan and software version at every client and at the coordinator."


def bad_parameters(what: str) -> AnabranchError:
    """Numbers that no round can have."""
    return AnabranchError("AB-952", what, fix="correct the parameter that the message names.")


def malformed(what: str) -> AnabranchError:
    """Bytes that are no message of this protocol."""
    return AnabranchError("AB-954", f"A message can not be read: {what}.", fix=_SAME, kept=_KEPT)


def foreign_context(sender: str) -> AnabranchError:
    """A message of another run, round, model or plan."""
    return AnabranchError(
        "AB-955",
        f"A message of {sender} belongs to another context (run, round, attempt, model or plan).",
        fix="send it in its own round; a round that is repeated needs a new attempt number.",
        kept=_KEPT,
    )


def out_of_order(state: str, step: str) -> AnabranchError:
    """A step that the state does not allow."""
    return AnabranchError(
        "AB-956",
        f"The step '{step}' does not follow the state '{state}'.",
        fix="keep to the order keys, shares, masked, unmask; each step happens once.",
        kept=_KEPT,
    )


def twice(sender: str, what: str) -> AnabranchError:
    """A second message where one is allowed."""
    return AnabranchError(
        "AB-957",
        f"{sender} sent {what} a second time.",
        fix="keep the first message; a client that restarted waits for the next attempt.",
        kept=_KEPT,
    )


def bad_signature(sender: str, what: str) -> AnabranchError:
    """A signature that is not the enrolled one's."""
    return AnabranchError(
        "AB-958",
        f"The signature under {what} of {sender} is not that of the enrolled identity.",
        fix="enrol the client again, or find out who sends in its name.",
        kept=_KEPT,
    )


def key_list_refused(what: str) -> AnabranchError:
    """A key list that a client does not mask against."""
    return AnabranchError(
        "AB-959",
        f"The key list was refused: {what}.",
        fix="send every client the same complete list of signed keys of enrolled clients.",
        kept="The client sent no shares and no vector.",
    )


def nonces_refused(what: str) -> AnabranchError:
    """Nonces from which no graph is made."""
    return AnabranchError(
        "AB-965",
        f"The opened nonces were refused: {what}.",
        fix="send every client the openings of the one key list; repeat the round without clients "
        "that do not open theirs.",
        kept="The client sent no shares and no vector.",
    )


def share_unreadable(sender: str) -> AnabranchError:
    """A sealed share that does not open."""
    return AnabranchError(
        "AB-960",
        f"A sealed share of {sender} does not open under this context.",
        fix="forward sealed shares unchanged, to the client and in the round they were made for.",
        kept=_KEPT,
    )


def shares_refused(what: str) -> AnabranchError:
    """A set of shares, from a dealer or for a recipient, that is not complete."""
    return AnabranchError(
        "AB-961",
        f"The shares were refused: {what}.",
        fix="deliver to each client one share from every participating neighbour, and no others.",
        kept="The client sent no vector.",
    )


def survivors_refused(what: str) -> AnabranchError:
    """A request to unmask that would open more than one sum."""
    return AnabranchError(
        "AB-962",
        f"The request to unmask was refused: {what}.",
        fix="ask once, for one set of survivors that enough clients signed, "
        "and for one kind of share of each client.",
        kept="No share was revealed.",
    )


def invitation_refused(what: str) -> AnabranchError:
    """A context that is not what the client's own plan says."""
    return AnabranchError(
        "AB-966",
        f"The invitation to a secure sum was refused: {what}.",
        fix="run the same plan at the coordinator and at every client, and send every client the "
        "same model.",
        kept="The client sent nothing.",
    )


def older(what: str) -> AnabranchError:
    """A context that lies before one that the client knows."""
    return AnabranchError(
        "AB-967",
        f"The invitation to a secure sum was refused: {what}.",
        fix="go on from the newest state of the run. A coordinator that was restored from an older "
        "copy starts a new run.",
        kept="The client sent nothing.",
    )


def roster_refused(what: str) -> AnabranchError:
    """Identities that are not those that the client knows."""
    return AnabranchError(
        "AB-968",
        f"The roster of a secure sum was refused: {what}.",
        fix="compare fingerprints with the other members, and update the signed roster at this "
        "client if a key was replaced.",
        kept="The client sent nothing.",
    )


def no_session(sender: str) -> AnabranchError:
    """A message for a round of which the client knows nothing."""
    return AnabranchError(
        "AB-970",
        f"{sender} has no open round for this message.",
        fix="nothing has to be mended: a client that lost its state counts as dropped and takes "
        "part in the next round.",
        kept="Nothing was revealed.",
    )


def not_held(why: str) -> AnabranchError:
    """A sum over an update that the client does not have, or gave away."""
    return AnabranchError(
        "AB-990",
        f"The sum is not over an update that this client holds: {why}.",
        fix="nothing at the client: it is asked to train again. If this is said often, the "
        "coordinator and its clients do not agree on what was asked; compare their logs.",
        kept=_KEPT,
    )
