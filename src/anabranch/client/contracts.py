"""The contracts that a client was shown, and those that somebody here agreed to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pydantic import Field

from anabranch.client.contract import amendments, check_amendment, plan_of_contract
from anabranch.client.log import ClientLog
from anabranch.client.policy import ClientPolicy, Decision
from anabranch.client.vault import Vault
from anabranch.disk import explained, make_directory, write_durably
from anabranch.errors import AnabranchError
from anabranch.plan import Plan
from anabranch.plan.amend import amendment_of
from anabranch.values import Value

__all__ = ["NOTES", "ContractBook", "ContractShelf"]

NOTES: Final = "approve"
"""Folder in a client's home where people leave approvals while the client is at work."""

_APPROVALS: Final = "approvals"
_SHOWN: Final = "contract-"
_RUNS: Final = "runs"
_NOTE: Final = "approval"
_REMEMBERED: Final = 1000  # runs whose contract is remembered
_TOLD: Final = 5  # changes of an amendment that a message lists


class _Approval(Value):
    name: str
    """What the contract calls the run."""
    at: int
    """Seconds since 1970 by the site's clock."""
    automatic: bool
    """The policy alone agreed."""


class _Approvals(Value):
    contracts: dict[str, _Approval] = Field(default_factory=dict)
    """By contract digest, the latest last."""


class _Runs(Value):
    contracts: dict[str, str] = Field(default_factory=dict)
    """Digest of the contract that was accepted last, by run."""


class ContractShelf:
    """The contracts that a client was shown, to be read while the client may be at work.

    Args:
        vault: of the client.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._notes = vault.path.parent / NOTES

    def shown(self) -> Mapping[str, bool]:
        """Every contract that was shown, by digest: whether it is approved."""
        approved = self._approvals().contracts
        digests = (name.removeprefix(_SHOWN) for name in self._vault.names(_SHOWN))
        return {digest: digest in approved for digest in digests}

    def read(self, digest: str) -> dict[str, object] | None:
        """A contract that was shown."""
        held = self._vault.get(_SHOWN + digest)
        return dict(json.loads(held)) if held is not None else None

    def changes(self) -> Iterator[str]:
        """What every waiting contract changes of the one that it would take the place of."""
        for digest, agreed in self.shown().items():
            contract = self.read(digest) or {}
            before = self._before(contract)
            if not agreed and before is not None:
                for change in amendments(self.read(before) or {}, contract):
                    yield f"{digest[:16]} changes {change}"

    def leave(self, digest: str) -> str:
        """Agree while the client is at work: a sealed note, which it takes up by itself.

        Only who can open the vault can write one.

        Args:
            digest: or the beginning of one.

        Returns:
            The whole digest.

        Raises:
            AnabranchError: AB-744 not exactly one contract was shown that begins like this.
        """
        meant = self._meant(digest)
        path = self._notes / f"{meant}.sealed"
        with explained(path, "leaving a note for the client"):
            make_directory(self._notes, "approve")
            write_durably(path, self._vault.seal(_NOTE, meant.encode()), "approve", mode=0o600)
        return meant

    def _meant(self, digest: str) -> str:
        meant = [known for known in self.shown() if known.startswith(digest)]
        if len(meant) != 1:
            raise AnabranchError(
                "AB-744",
                f"{len(meant)} contracts that begin with {digest!r} were shown to this client.",
                fix="give one of the digests that `anabranch approve` lists.",
            )
        return meant[0]

    def _before(self, contract: Mapping[str, object]) -> str | None:
        """The approved contract that this one would take the place of."""
        approved = self._approvals().contracts
        amendment = amendment_of(contract)
        named = amendment.predecessors if amendment is not None else ()
        found = next((digest for digest in reversed(named) if digest in approved), None)
        return found or self._approved_before(str(contract.get("name", "")))

    def _approvals(self) -> _Approvals:
        held = self._vault.get(_APPROVALS)
        return _Approvals.model_validate_json(held) if held is not None else _Approvals()

    def _approved_before(self, name: str) -> str | None:
        """The contract of this name that was approved last."""
        found = [d for d, given in self._approvals().contracts.items() if given.name == name]
        return found[-1] if found else None


class ContractBook(ContractShelf):
    """What may be run here, as policy and people decided.

    Args:
        vault: keeps contracts and approvals.
        log: is told every decision.
        policy: the site's rules.
        who: fingerprint of the coordinator, for the log.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        vault: Vault,
        log: ClientLog,
        policy: ClientPolicy,
        who: Callable[[], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(vault)
        self._log, self._policy = log, policy
        self._who, self._clock = who, clock

    def consider(
        self, contract: Mapping[str, object], digest: str, clients: int, run: str = ""
    ) -> Decision:
        """Whether this site takes part under a contract; kept for people to read, and logged.

        Args:
            contract: the document.
            digest: announced for it.
            clients: members of the fleet.
            run: id of the run that has this contract now; a run that had another one before was
                amended, or its contract was changed.

        Raises:
            AnabranchError: AB-744 the document is not what was announced, or this installation
                would run something else; AB-795 the run's contract was changed without an
                amendment; AB-1xx it is no plan.
        """
        plan = plan_of_contract(contract, digest)
        self._take_up()
        known = self._of_run(run, contract, digest)
        if self._vault.get(_SHOWN + digest) is None:
            self._vault.put(_SHOWN + digest, json.dumps(contract).encode())
            self._log.add("contract", self._who(), {"contract": digest, "name": plan.name})
        decision = self._decide(plan, contract, digest, clients, known)
        if not decision.accepted:
            details = {"contract": digest, "reason": decision.reason}
            self._log.add("declined", self._who(), details, durable=True)
        elif run and known != digest:
            self._bind(run, digest)
        return decision

    def _of_run(self, run: str, contract: Mapping[str, object], digest: str) -> str:
        """The contract that this client accepted for a run before; empty when there is none."""
        known = self._runs().contracts.get(run, "")
        old = self.read(known) if known else None
        if old is not None and known != digest:
            check_amendment(old, known, contract, digest)
        return known

    def _bind(self, run: str, digest: str) -> None:
        """From now on this is the run's contract; another one must amend it."""
        kept = {r: d for r, d in self._runs().contracts.items() if r != run}
        while len(kept) >= _REMEMBERED:
            del kept[next(iter(kept))]
        kept[run] = digest
        self._vault.put(_RUNS, _Runs(contracts=kept).model_dump_json().encode())

    def _runs(self) -> _Runs:
        held = self._vault.get(_RUNS)
        return _Runs.model_validate_json(held) if held is not None else _Runs()

    def _decide(
        self, plan: Plan, contract: Mapping[str, object], digest: str, clients: int, known: str
    ) -> Decision:
        decision = self._policy.judge(plan, clients)
        approved = self._approvals().contracts
        if not decision.accepted or digest in approved:
            return decision
        before = known if known in approved else self._approved_before(plan.name)
        if not self._policy.needs_approval(known=before is not None):
            self._note(digest, plan.name, automatic=True)
            return decision
        what = "is new"
        if before is not None:
            changed = amendments(self.read(before) or {}, contract)
            what = f"amends one that was approved ({'; '.join(changed[:_TOLD])})"
        reason = f"contract {digest[:16]} of {plan.name!r} {what}, and nobody here has approved it"
        return Decision(False, reason, "AB-744")

    def approve(self, digest: str) -> str:
        """A person agrees to a contract that the client was shown.

        Args:
            digest: or the beginning of one.

        Returns:
            The whole digest.

        Raises:
            AnabranchError: AB-744 not exactly one contract was shown that begins like this.
        """
        meant = self._meant(digest)
        self._approve(meant)
        return meant

    def _approve(self, digest: str) -> None:
        contract = self.read(digest) or {}
        self._note(digest, str(contract.get("name", "")), automatic=False)

    def _take_up(self) -> None:
        """Notes that people left while the client was at work; what is not theirs is ignored."""
        for path in sorted(self._notes.glob("*.sealed")):
            try:
                with explained(path, "reading a note"):
                    digest = self._vault.open(_NOTE, path.read_bytes(), path).decode("ascii")
            except AnabranchError as error:
                if error.code != "AB-747":
                    raise
                digest = ""  # sealed by somebody who cannot open the vault
            shown = self.shown()
            if digest in shown and not shown[digest]:
                self._approve(digest)
            with explained(path, "taking up a note"):
                path.unlink(missing_ok=True)

    def learn(self, contract: Mapping[str, object], digest: str) -> Plan:
        """Keep a contract that came with a kit, so that people can approve it before any contact.

        Raises:
            AnabranchError: as `consider`.
        """
        plan = plan_of_contract(contract, digest)
        self._vault.put(_SHOWN + digest, json.dumps(contract).encode())
        return plan

    def _note(self, digest: str, name: str, *, automatic: bool) -> None:
        given = {d: a for d, a in self._approvals().contracts.items() if d != digest}
        given[digest] = _Approval(name=name, at=int(self._clock()), automatic=automatic)
        self._vault.put(_APPROVALS, _Approvals(contracts=given).model_dump_json().encode())
        by = "policy" if automatic else "a person here"
        self._log.add("approved", by, {"contract": digest, "name": name}, durable=True)
