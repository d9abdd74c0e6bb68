"""Our server rules as a Flower strategy, with messages as Flower makes them and by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("flwr", minversion="1.41")

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from near_grid import inside_an_app

from anabranch.algorithms import FedAdam, FedAvg, FedExP, FedNova, FedProx, Scaffold
from anabranch.algorithms.base import Algorithm
from anabranch.errors import AnabranchError
from anabranch.runtimes.flower.strategy import AnabranchStrategy


@pytest.fixture(autouse=True)
def _in_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    inside_an_app(monkeypatch)


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


def reply(message: Message, shift: float, examples: int, **metrics: float) -> Message:
    theirs = {name: value + np.float32(shift) for name, value in MODEL.items()}
    told = MetricRecord({"num-examples": examples, **metrics})
    return Message(RecordDict({"arrays": record(theirs), "metrics": told}), reply_to=message)


def answered(strategy: AnabranchStrategy, order: list[int]) -> dict[str, np.ndarray]:
    messages = sorted(asked(strategy), key=lambda m: m.metadata.dst_node_id)
    shifts = [(1.0, 1), (2.0, 3), (0.3, 2)]
    replies = [reply(m, *shift) for m, shift in zip(messages, shifts, strict=False)]
    arrays, _ = strategy.aggregate_train(1, [replies[index] for index in order])
    assert arrays is not None
    return {name: array.numpy() for name, array in arrays.items()}


def strategy(algorithm: Algorithm, **options: object) -> AnabranchStrategy:
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


@pytest.mark.parametrize("algorithm", [Scaffold(), FedProx(mu=0.1), FedNova(mu=0.1)])
def test_algorithms_with_a_client_half_are_refused(algorithm: Algorithm) -> None:
    with pytest.raises(AnabranchError, match="AB-786"):
        AnabranchStrategy(algorithm, clients=4)


def test_fednova_by_hand_from_the_steps_that_clients_tell() -> None:
    """Two clients of equal weight, 2 and 8 steps, moved by 1 and 2: tau = 5, mean d/a = 0.375."""
    made = strategy(FedNova())
    messages = asked(made)
    replies = [
        reply(messages[0], 1.0, 10, **{"local-steps": 2}),
        reply(messages[1], 2.0, 10, **{"local-steps": 8}),
    ]
    arrays, _ = made.aggregate_train(1, replies)
    assert arrays is not None
    np.testing.assert_allclose(arrays["b"].numpy(), [3.0 + 5 * (1 / 2 + 2 / 8) / 2])


@pytest.mark.parametrize("told", [{}, {"local-steps": 0}, {"local-steps": float("nan")}])
def test_fednova_without_steps_is_refused_with_the_remedy(told: dict[str, float]) -> None:
    made = strategy(FedNova())
    message, *_ = asked(made)
    with pytest.raises(AnabranchError, match="AB-787"):
        made.aggregate_train(1, [reply(message, 1.0, 10, **told)])


def test_what_is_trained_further_is_the_iterate_and_not_what_is_evaluated() -> None:
    """FedExP evaluates the mean of the last two iterates."""
    made = strategy(FedExP())
    first = asked(made)
    arrays, _ = made.aggregate_train(1, [reply(m, 2.0, 1) for m in first])
    assert arrays is not None
    sent = next(iter(asked(made, 2)[0].content.array_records.values()))
    np.testing.assert_allclose(arrays["b"].numpy(), [4.0])
    np.testing.assert_allclose(sent["b"].numpy(), [5.0])


def test_a_reply_that_cannot_be_added_is_left_out() -> None:
    made = strategy(FedAvg())
    messages = asked(made)
    broken = [reply(messages[0], float("nan"), 10), reply(messages[1], 1.0, 10)]
    arrays, _ = made.aggregate_train(1, broken)
    assert arrays is not None
    np.testing.assert_allclose(arrays["b"].numpy(), [4.0])
    assert made.aggregate_train(2, broken[:1]) == (None, None)


def test_fewer_nodes_are_drawn_than_must_be_there() -> None:
    """Half of four, of which three must be there: Flower's own sampling waits for all of them."""
    made = AnabranchStrategy(
        FedAvg(), clients=4, fraction_train=0.5, min_train_nodes=1, min_available_nodes=3
    )
    assert len(asked(made)) == 2


def test_counters_keep_their_type() -> None:
    made = strategy(FedAvg())
    given = {"a": np.ones(2, np.float64), "n": np.array(7, np.int64)}
    messages = made.configure_train(1, record(given), ConfigRecord(), Nodes())
    theirs = {"a": np.full(2, 3.0), "n": np.array(9, np.int64)}
    replies = [
        Message(
            RecordDict({"arrays": record(theirs), "metrics": MetricRecord({"num-examples": 1})}),
            reply_to=message,
        )
        for message in messages
    ]
    arrays, _ = made.aggregate_train(1, replies)
    assert arrays is not None
    found = {name: array.numpy() for name, array in arrays.items()}
    assert (found["a"].dtype, found["n"].dtype) == (np.float64, np.int64)
    assert found["n"] == 9
    np.testing.assert_array_equal(found["a"], theirs["a"])
