"""Apple's pfl: its SimulatedBackend with FederatedAveraging on a PyTorch model, one process.

Written as its PyTorch tutorial shows, with the users' tensors loaded beforehand and evaluation off.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from itertools import chain

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks import models
from benchmarks.items import BATCH, LEARNING_RATE, Item, Work, load_initial
from benchmarks.outcome import Outcome
from benchmarks.peers.steps import client_data

__all__ = ["run"]


class Trained(nn.Module):
    """A module with the two methods that pfl asks for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy."""
        return cross_entropy(self.net.train()(inputs), labels)

    def metrics(self, inputs: Tensor, labels: Tensor) -> dict[str, float]:
        """Nothing is evaluated."""
        return {}


class Clock(TrainingProcessCallback):
    """Notes the end of every round."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
        """The first round starts."""
        self.marks.append(time.perf_counter())
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """A round ended."""
        self.marks.append(time.perf_counter())
        return False, Metrics()


class TrainOnly(FederatedAveraging):
    """FederatedAveraging without the evaluation that pfl makes in iteration 0."""

    def get_next_central_contexts(self, *given, **named):
        """As it is, with evaluation switched off."""
        contexts, model, metrics = super().get_next_central_contexts(*given, **named)
        for context in contexts or ():
            object.__setattr__(context, "do_evaluation", False)
        return contexts, model, metrics


def run(item: Item, work: Work, rounds: int) -> Outcome:
    """Simulate ``rounds`` rounds of ``item``."""
    started = time.perf_counter()
    torch.set_num_threads(item.threads)
    net = models.load(models.build(item.model), load_initial(item))
    module = Trained(net)
    central = torch.optim.SGD(module.parameters(), lr=1.0)
    clock = Clock()
    TrainOnly().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=item.cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(
            training_data=_users(item, work, rounds),
            val_data=None,
            postprocessors=[WeightByDatapoints()],
        ),
        model=PyTorchModel(module, torch.optim.SGD, central),
        model_train_params=NNTrainHyperParams(
            local_batch_size=BATCH, local_num_epochs=1, local_learning_rate=LEARNING_RATE
        ),
        callbacks=[clock],
    )
    return Outcome(
        np.diff(clock.marks),
        models.flat(net),
        clock.marks[0] - started,
        item.threads,
        f"pfl {version('pfl')}, torch {torch.__version__}",
    )


def _users(item: Item, work: Work, rounds: int) -> FederatedDataset:
    """Users with tensors in memory, drawn in the order of the benchmark's cohorts."""
    users = [
        Dataset(raw_data=list(client_data(item, work, client)), user_id=str(client))
        for client in range(item.clients)
    ]
    order = chain.from_iterable(work.cohorts[:rounds].tolist())
    return FederatedDataset(lambda user: users[user], lambda: next(order))
