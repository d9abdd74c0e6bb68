"""Flower's simulation (flwr[simulation], Ray backend, one core for each client app).

Written as its PyTorch quick start shows: a message-API ServerApp with the FedAvg strategy and a
ClientApp that loads the arrays, trains and sends arrays and the number of examples back. The
strategy asks the benchmark's cohort: each message says which client the node plays.
"""

from __future__ import annotations

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import time
from collections.abc import Iterable

import flwr
import numpy as np
import ray
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks import models
from benchmarks.items import Item, Work, load_initial
from benchmarks.outcome import Outcome
from benchmarks.peers.steps import client_data, loaded, train

__all__ = ["run"]

STORE_BYTES = 500_000_000
"""Ray's object store; without a cap it takes 30 % of the memory."""

client = ClientApp()


@client.train()
def train_client(message: Message, context: Context) -> Message:
    """Train one client of the benchmark."""
    torch.set_num_threads(1)
    config = message.content["config"]
    item, work, model = loaded(str(config["item"]))
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    inputs, labels = client_data(item, work, int(config["client"]))
    train(model, inputs, labels)
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(labels)}),
        }
    )
    return Message(content=content, reply_to=message)


class FixedCohorts(FedAvg):
    """FedAvg that asks the benchmark's cohorts and notes when each round starts."""

    def __init__(self, item: Item, work: Work) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.item, self.work = item, work
        self.marks: list[float] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message for each client of the cohort."""
        self.marks.append(time.perf_counter())
        nodes = list(grid.get_node_ids())
        messages = []
        for node, number in zip(nodes, self.work.cohorts[server_round - 1], strict=False):
            told = ConfigRecord({"item": self.item.name, "client": int(number)})
            record = RecordDict({"arrays": arrays, "config": told})
            messages.append(Message(content=record, message_type="train", dst_node_id=node))
        return messages


def run(item: Item, work: Work, rounds: int) -> Outcome:
    """Simulate ``rounds`` rounds of ``item``."""
    started = time.perf_counter()
    strategy = FixedCohorts(item, work)
    final: list[ArrayRecord] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        model = models.load(models.build(item.model), load_initial(item))
        initial = ArrayRecord(model.state_dict())
        while len(list(grid.get_node_ids())) < item.clients:
            time.sleep(0.05)
        result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=rounds)
        strategy.marks.append(time.perf_counter())
        final.append(result.arrays)

    cores = len(os.sched_getaffinity(0))
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=item.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": cores, "object_store_memory": STORE_BYTES},
        },
    )
    model = models.build(item.model)
    model.load_state_dict(final[0].to_torch_state_dict())
    return Outcome(
        np.diff(strategy.marks),
        models.flat(model),
        strategy.marks[0] - started,
        cores,
        f"flwr {flwr.__version__}, ray {ray.__version__}, torch {torch.__version__}",
    )
