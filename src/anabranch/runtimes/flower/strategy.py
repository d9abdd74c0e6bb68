"""Our server rules as a Flower `Strategy`, for a ServerApp that exists already.

    from flwr.serverapp import ServerApp
    from anabranch.algorithms import FedAdam
    from anabranch.runtimes.flower.strategy import AnabranchStrategy

    AnabranchStrategy(FedAdam(server_learning_rate=0.1), clients=3).start(grid=grid, ...)

Clients stay as they are: they answer with their arrays and ``num-examples``, and for FedNova with
their steps. The arrays of a round are folded exactly (`anabranch.aggregation.fold`), so the order
of replies changes no bit, and nodes are drawn by (seed, round) from the sorted ids. What a client
half does with the update alone is done here; algorithms whose clients change their gradients or
keep vectors between rounds (SCAFFOLD, FedDyn, FedProx) run as an exported app instead.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.strategy_utils import sample_nodes

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.aggregation.weighting import Examples
from anabranch.algorithms.base import Algorithm, LocalWork, RoundContext, ServerState
from anabranch.errors import AnabranchError
from anabranch.fleet.selection import select_uniform
from anabranch.randomness import generator
from anabranch.updates.sections import WEIGHT, Sections, Update, Vector

if TYPE_CHECKING:
    from flwr.serverapp import Grid

__all__ = ["AnabranchStrategy"]

_LOG: Final = logging.getLogger("flwr")
"""Flower shows its own logger, and of the others nothing."""


class AnabranchStrategy(FedAvg):  # type: ignore[misc]  # Flower is not installed where types are checked
    """FedAvg's messages with one of our server rules.

    Args:
        algorithm: one whose clients train as usual and send the model that they end with.
        clients: N, the nodes of the fleet.
        seed: of the selection; public.
        steps_key: metric in which clients tell FedNova's a_i: their number of local steps for SGD
            without momentum, else the L1 norm of the accumulated gradient coefficients.
        options: of Flower's FedAvg (``fraction_train``, ``min_train_nodes``, ...).

    Raises:
        AnabranchError: AB-786 the algorithm has a client half that Flower's clients lack.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        clients: int,
        seed: int = 0,
        steps_key: str = "local-steps",
        **options: object,
    ) -> None:
        if algorithm.memory_sections(1) or _corrects(algorithm):
            raise AnabranchError(
                "AB-786",
                f"{algorithm.name or type(algorithm).__name__} has a client half, which clients of "
                "a Flower app do not run.",
                fix="export the plan as an app (`anabranch flower export`), or choose fedavg, "
                "fedavgm, fedadagrad, fedadam, fedyogi, fedexp or fednova without mu.",
                kept="Nothing was started.",
            )
        super().__init__(**options)
        self._algorithm, self._clients, self._seed = algorithm, clients, seed
        self._steps_key = steps_key
        self._state: ServerState | None = None
        self._like: Mapping[str, np.ndarray] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of a round: nodes are drawn from their sorted ids by (seed, round)."""
        if self.fraction_train == 0.0:
            return []
        if self._state is None:
            self._like = {name: array.numpy() for name, array in arrays.items()}
            self._state = self._algorithm.init(_flat(self._like))
        share = int(len(list(grid.get_node_ids())) * self.fraction_train)
        wanted = max(share, self.min_train_nodes)
        _, known = sample_nodes(grid, self.min_available_nodes, wanted)  # waits for them
        nodes = sorted(known)
        chosen = select_uniform(len(nodes), wanted, generator(self._seed, "cohort", server_round))
        config["server-round"] = server_round
        # Not the arrays that were given: what is evaluated need not be what is trained further.
        model = self._arrays(self._algorithm.broadcast(self._state)["model"])
        record = RecordDict({self.arrayrecord_key: model, self.configrecord_key: config})
        return [
            Message(record, dst_node_id=nodes[index], message_type=MessageType.TRAIN)
            for index in chosen
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next model by the algorithm's server rule; replies that cannot be added are left out.

        Raises:
            AnabranchError: AB-787 a client did not tell its steps, which the algorithm needs.
        """
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid or self._state is None:
            return None, None
        dim = len(self._state.model)
        sections = Sections((*self._algorithm.sections(dim), Examples().section()))
        fold = Accumulator(FoldPlan(sections, len(valid)))
        merged = [reply for reply in valid if self._added(fold, reply)]
        if not merged:
            return None, None
        context = RoundContext(server_round, self._clients)
        self._state = self._algorithm.server_update(self._state, fold.total(), context)
        metrics = self.train_metrics_aggr_fn([r.content for r in merged], self.weighted_by_key)
        return self._arrays(self._algorithm.evaluated_model(self._state)), metrics

    def _added(self, fold: Accumulator, reply: Message) -> bool:
        """Fold one reply; whether it could be added."""
        node = str(reply.metadata.src_node_id)
        metrics = next(iter(reply.content.metric_records.values()))
        needs_steps = self._algorithm.requirement().known_coefficients
        if needs_steps and not _positive(metrics.get(self._steps_key)):
            raise AnabranchError(
                "AB-787",
                f"the reply of node {node} has no metric {self._steps_key!r} above zero, which "
                f"{self._algorithm.name} divides its update by.",
                fix=f'let the ClientApp answer with "{self._steps_key}": the number of its local '
                "steps, or choose fedavg.",
                kept="The round was not merged.",
            )
        try:
            fold.add(self._update(reply, metrics), node)
        except (AnabranchError, KeyError, ValueError) as error:
            _LOG.warning("the reply of node %s was left out: %s", node, error)
            return False
        return True

    def _update(self, reply: Message, metrics: MetricRecord) -> Update:
        """What our client would have sent, made of what theirs did."""
        assert self._state is not None
        arrays = next(iter(reply.content.array_records.values()))
        theirs = _flat({name: _shaped(arrays[name].numpy(), a) for name, a in self._like.items()})
        coefficient = float(metrics.get(self._steps_key, 1.0))
        examples = float(metrics[self.weighted_by_key])
        delta = theirs - self._algorithm.broadcast(self._state)["model"]
        work = LocalWork(delta, round(coefficient), round(examples), coefficient, coefficient)
        values, _ = self._algorithm.client_update(self._algorithm.broadcast(self._state), {}, work)
        vectors = {name: v for name, v in values.items() if isinstance(v, np.ndarray)}
        scalars = {name: v for name, v in values.items() if not isinstance(v, np.ndarray)}
        return Update(vectors, {**scalars, WEIGHT: examples})

    def _arrays(self, model: Vector) -> ArrayRecord:
        """The flat vector in the names, shapes and types of the model that was given first."""
        found, start = {}, 0
        for name, like in self._like.items():
            part = model[start : start + like.size].reshape(like.shape)
            whole = np.issubdtype(like.dtype, np.integer)
            found[name] = Array(np.asarray(np.rint(part) if whole else part, like.dtype))
            start += like.size
        return ArrayRecord(found)


def _flat(arrays: Mapping[str, np.ndarray]) -> Vector:
    parts = [np.asarray(value, np.float32).ravel() for value in arrays.values()]
    return np.concatenate(parts)


def _shaped(array: np.ndarray, like: np.ndarray) -> np.ndarray:
    if array.shape != like.shape:
        raise ValueError(f"an array has the shape {array.shape}, wanted {like.shape}")
    return array


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0


def _corrects(algorithm: Algorithm) -> bool:
    """Whether clients change their gradients."""
    probe = np.zeros(1, np.float32)
    broadcast = algorithm.broadcast(algorithm.init(probe))
    found = algorithm.client_correction(broadcast, {})
    return bool(found.pull) or found.drift is not None or set(broadcast) != {"model"}
