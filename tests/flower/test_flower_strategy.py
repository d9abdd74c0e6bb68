"""Our server rules as a Flower strategy, with messages as Flower makes them and by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("flwr", minversion="1.41")

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from anabranch.algorithms import FedAdam, FedAvg, FedProx, Scaffold
from anabranch.errors import AnabranchError
from anabranch.runtimes.flower.strategy import AnabranchStrategy


@pytest.fixture(autouse=True)
def _inside_a_server_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower makes messages only where it knows which run they belong to."""
    for name, value in (("_run_id", 1), ("_node_id", 1), ("_task_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value, raising=False)


MODEL = {"a": np.array([[1.0, 2.0]], np.float32), "b": np.array([3.0], np.float32)}


class Nodes:
    """The part of a Grid that a strategy looks at."""

    def get_node_ids(self) -> list[int]:
        return [30, 10, 20, 40]


def record(arrays: dict[str, np.ndarray]) -> ArrayRecord:
    made = ArrayRecord(list(arrays.values()))
    return ArrayRecord(dict(zip(arrays, made.values(), strict=True)))


def asked(strategy: AnabranchStrategy, round_: int = 1) -> list[Message]:
    return list(strategy.configure_train(round_, record(MODEL), ConfigRecord(), Nodes()))


def reply(message: Message, shift: float, examples: int) -> Message:
    theirs = {name: value + np.float32(shift) for name, value in MODEL.items()}
    content = RecordDict(
        {"arrays": record(theirs), "metrics": MetricRecord({"num-examples": examples})}
    )
    return Message(content, reply_to=message)


def answered(strategy: AnabranchStrategy, order: list[int]) -> dict[str, np.ndarray]:
    messages = sorted(asked(strategy), key=lambda m: m.metadata.dst_node_id)
    shifts = [(1.0, 1), (2.0, 3), (0.3, 2)]
    replies = [reply(m, *shift) for m, shift in zip(messages, shifts, strict=False)]
    arrays, _ = strategy.aggregate_train(1, [replies[index] for index in order])
    assert arrays is not None
    return {name: array.numpy() for name, array in arrays.items()}


def strategy(algorithm: FedAvg | FedAdam, **options: object) -> AnabranchStrategy:
    return AnabranchStrategy(algorithm, clients=4, min_train_nodes=3, fraction_train=0.5, **options)


def test_the_mean_by_hand_whatever_the_order_of_replies() -> None:
    mean = (1.0 * 1 + 2.0 * 3 + 0.3 * 2) / 6
    first = answered(strategy(FedAvg()), [0, 1, 2])
    other = answered(strategy(FedAvg()), [2, 0, 1])
    for name, value in MODEL.items():
        np.testing.assert_allclose(first[name], value + mean, rtol=1e-6)
        np.testing.assert_array_equal(first[name], other[name])


def test_a_server_optimizer_keeps_its_state_over_rounds() -> None:
    made = strategy(FedAdam(server_learning_rate=0.1))
    one, two = answered(made, [0, 1, 2]), answered(made, [0, 1, 2])
    assert not np.array_equal(one["a"], two["a"])


def test_nodes_are_drawn_by_seed_and_round() -> None:
    def drawn(seed: int, round_: int) -> list[int]:
        return [m.metadata.dst_node_id for m in asked(strategy(FedAvg(), seed=seed), round_)]

    assert sorted(drawn(1, 1)) == sorted(drawn(1, 1))
    assert len({tuple(sorted(drawn(1, round_))) for round_ in range(1, 12)}) > 1


@pytest.mark.parametrize("algorithm", [Scaffold(), FedProx(mu=0.1)])
def test_algorithms_with_a_client_half_are_refused(algorithm: Scaffold | FedProx) -> None:
    with pytest.raises(AnabranchError, match="AB-786"):
        AnabranchStrategy(algorithm, clients=4)
