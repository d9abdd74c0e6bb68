"""Our server rules as a Flower `Strategy`, for a ServerApp that exists already.

    from flwr.serverapp import ServerApp
    from anabranch.algorithms import FedAdam
    from anabranch.runtimes.flower.strategy import AnabranchStrategy

    AnabranchStrategy(FedAdam(server_learning_rate=0.1), clients=3).start(grid=grid, ...)

Clients stay as they are: they answer with their arrays and ``num-examples``. The arrays of a round
are folded exactly (`anabranch.aggregation.fold`), so the order of replies changes no bit, and nodes
are drawn by (seed, round) from the sorted ids. Algorithms that need a client half of their own
(SCAFFOLD, FedNova, FedDyn, FedProx) run as an exported app instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp.strategy import FedAvg

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.aggregation.weighting import Examples
from anabranch.algorithms.base import Algorithm, RoundContext, ServerState
from anabranch.errors import AnabranchError
from anabranch.fleet.selection import select_uniform
from anabranch.randomness import generator
from anabranch.updates.sections import WEIGHT, Sections, Update, Vector

if TYPE_CHECKING:
    from flwr.serverapp import Grid

__all__ = ["AnabranchStrategy"]


class AnabranchStrategy(FedAvg):  # type: ignore[misc]  # Flower is not installed where types are checked
    """FedAvg's messages with one of our server rules.

    Args:
        algorithm: whose whole client half is to send the update.
        clients: N, the nodes of the fleet.
        seed: of the selection; public.
        options: of Flower's FedAvg (``fraction_train``, ``min_train_nodes``, ...).

    Raises:
        AnabranchError: AB-786 the algorithm has a client half that Flower's clients lack.
    """

    def __init__(
        self, algorithm: Algorithm, clients: int, seed: int = 0, **options: object
    ) -> None:
        others = [s.name for s in algorithm.sections(1) if s.name != "delta"]
        if others or algorithm.memory_sections(1) or _corrects(algorithm):
            raise AnabranchError(
                "AB-786",
                f"{algorithm.name or type(algorithm).__name__} has a client half, which clients of "
                "a Flower app do not run.",
                fix="export the plan as an app (`anabranch flower export`), or choose fedavg, "
                "fedavgm, fedadagrad, fedadam or fedyogi.",
                kept="Nothing was started.",
            )
        super().__init__(**options)
        self._algorithm, self._clients, self._seed = algorithm, clients, seed
        self._state: ServerState | None = None
        self._shapes: Mapping[str, tuple[int, ...]] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of a round: nodes are drawn from their sorted ids by (seed, round)."""
        model = {name: array.numpy() for name, array in arrays.items()}
        self._shapes = {name: value.shape for name, value in model.items()}
        if self._state is None:
            self._state = self._algorithm.init(_flat(model))
        nodes = sorted(grid.get_node_ids())
        wanted = max(int(len(nodes) * self.fraction_train), self.min_train_nodes)
        chosen = select_uniform(len(nodes), wanted, generator(self._seed, "cohort", server_round))
        config["server-round"] = server_round
        messages = super().configure_train(server_round, arrays, config, _Chosen(nodes, chosen))
        return [
            message for message in messages if message.metadata.message_type == MessageType.TRAIN
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next model by the algorithm's server rule."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid or self._state is None:
            return None, None
        model, weight = self._state.model, Examples()
        sections = Sections((*self._algorithm.sections(len(model)), weight.section()))
        fold = Accumulator(FoldPlan(sections, len(valid)))
        for reply in valid:
            node = str(reply.metadata.src_node_id)
            fold.add(self._update(reply, model), node)
        context = RoundContext(server_round, self._clients)
        self._state = self._algorithm.server_update(self._state, fold.total(), context)
        metrics = self.train_metrics_aggr_fn([r.content for r in valid], self.weighted_by_key)
        return self._arrays(self._algorithm.evaluated_model(self._state)), metrics

    def _update(self, reply: Message, model: Vector) -> Update:
        arrays = next(iter(reply.content.array_records.values()))
        metrics = next(iter(reply.content.metric_records.values()))
        theirs = _flat({name: arrays[name].numpy() for name in self._shapes})
        return Update({"delta": theirs - model}, {WEIGHT: float(metrics[self.weighted_by_key])})

    def _arrays(self, model: Vector) -> ArrayRecord:
        found, start = {}, 0
        for name, shape in self._shapes.items():
            size = int(np.prod(shape, dtype=np.int64))
            found[name] = model[start : start + size].reshape(shape)
            start += size
        made = ArrayRecord(list(found.values()))
        return ArrayRecord(dict(zip(found, made.values(), strict=True)))


class _Chosen:
    """Shows Flower's own sampling the nodes that were drawn, and no others."""

    def __init__(self, nodes: list[int], chosen: tuple[int, ...]) -> None:
        self._nodes = [nodes[index] for index in chosen]

    def get_node_ids(self) -> list[int]:
        return self._nodes


def _flat(arrays: Mapping[str, np.ndarray]) -> Vector:
    parts = [np.asarray(value, np.float32).ravel() for value in arrays.values()]
    return np.concatenate(parts)


def _corrects(algorithm: Algorithm) -> bool:
    """Whether clients change their gradients."""
    probe = np.zeros(1, np.float32)
    broadcast = algorithm.broadcast(algorithm.init(probe))
    found = algorithm.client_correction(broadcast, {})
    return bool(found.pull) or found.drift is not None or set(broadcast) != {"model"}
