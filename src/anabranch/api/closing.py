"""How a run ends: final metrics, baselines, limits, the model's files; then the store is told."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from anabranch.api.baselines import local_only, pooled
from anabranch.api.prepare import Prepared
from anabranch.api.run import Baseline, Run
from anabranch.client.states import SlotFile
from anabranch.coordinator.events import EvaluationDone, LimitCheck, RunEnded
from anabranch.coordinator.loop import Coordinator, Ending
from anabranch.coordinator.notes import evaluation_note, limits_note, model_note
from anabranch.coordinator.state import RunState
from anabranch.coordinator.store import RunSession
from anabranch.updates.layout import Policy
from anabranch.updates.sections import Vector

__all__ = ["Closing"]


@dataclass(frozen=True)
class Closing:
    """The end of one run.

    Attributes:
        prepared: plan, data and program.
        session: the run in the store.
        coordinator: has done the rounds.
        slots: the clients' memory, or None.
        store: folder of the store.
    """

    prepared: Prepared
    session: RunSession
    coordinator: Coordinator
    slots: SlotFile | None
    store: Path

    def close(self, state: RunState, ending: Ending, started: float) -> Run:
        """Measure, write, say how it ended."""
        final = self._final(state)
        baselines = self._baselines() if ending.status == "complete" else ()
        for done in (final, *baselines):
            self.session.note(evaluation_note(done))
            self.coordinator.tell(done)
        watch = self.coordinator.watch
        checks = watch.checks(state.progress) if watch is not None else ()
        if checks:
            self.session.note(limits_note(checks))
        seconds = time.monotonic() - started
        run = self._run(state, ending, final, checks, baselines, seconds)
        self._save(run)
        self.session.finish(ending.status, ending.reason)
        self.coordinator.tell(
            RunEnded(ending.status, ending.reason, seconds, final.metrics, checks)
        )
        return run

    def _final(self, state: RunState) -> EvaluationDone:
        federation = self.prepared.federation
        measured = self.coordinator.evaluate(state.round, state.server)
        clients = {federation.names[c]: metrics for c, metrics in measured.clients.items()}
        examples: dict[str, int] = {}
        if federation.test is not None:
            counts = federation.test.counts
            examples = {federation.names[c]: int(counts[c]) for c in measured.clients}
        return EvaluationDone("final", measured.metrics, clients, examples)

    def _baselines(self) -> tuple[EvaluationDone, ...]:
        makers = {"local-only": local_only, "pooled": pooled}
        program, federation = self.prepared.program, self.prepared.federation
        return tuple(
            replace(makers[name](program, federation), what=name.replace("-", "_"))
            for name in self.prepared.plan.evaluation.baselines
        )

    def _run(
        self,
        state: RunState,
        ending: Ending,
        final: EvaluationDone,
        checks: tuple[LimitCheck, ...],
        baselines: tuple[EvaluationDone, ...],
        seconds: float,
    ) -> Run:
        program = self.prepared.program
        vector = program.base.copy()
        vector[: program.dim] = program.algorithm.evaluated_model(state.server)
        return Run(
            id=self.session.run_id,
            store=self.store,
            status=ending.status,
            reason=ending.reason,
            rounds=state.round,
            seconds=seconds,
            metrics=final.metrics,
            clients=final.clients,
            limits=checks,
            baselines=tuple(Baseline(b.what, b.metrics, b.clients) for b in baselines),
            learner=program.learner,
            vector=vector,
            personal=self._personal(vector[: program.dim]),
        )

    def _personal(self, model: Vector) -> dict[str, Vector]:
        """The whole vector of every client that keeps parameters of its own."""
        program, names = self.prepared.program, self.prepared.federation.names
        if self.slots is None or not program.learner.layout.local:
            return {}
        memories = ((name, self.slots.read(client)) for client, name in enumerate(names))
        return {n: program.whole_vector(model, m) for n, m in memories if m is not None}

    def _save(self, run: Run) -> None:
        """The model at the coordinator, and the local parameters as they are at the clients."""
        folder = self.store / "models"
        path = run.save(folder / f"{run.id}.safetensors")
        layout = run.learner.layout
        local = [p.name for p in layout.parameters if p.policy is Policy.LOCAL]
        if run.personal:
            own = {
                f"{client}/{name}": np.ascontiguousarray(layout.view(vector, name))
                for client, vector in run.personal.items()
                for name in local
            }
            save_file(own, folder / f"{run.id}.clients.safetensors")
        self.session.note(model_note(str(path), sha256(path.read_bytes()).hexdigest()))
