"""A Flower ServerApp with a strategy of Anabranch."""

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from anabranch.algorithms import FedNova
from anabranch.runtimes.flower.strategy import AnabranchStrategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Some rounds; the final weights go to the file ``result``, if one is named."""
    config = context.run_config
    nodes = int(config["nodes"])
    strategy = AnabranchStrategy(
        FedNova(),
        clients=nodes,
        seed=1,
        min_train_nodes=nodes,
        min_available_nodes=nodes,
        fraction_evaluate=0.0,
    )
    start = ArrayRecord([np.zeros(3, np.float32)])
    done = strategy.start(grid=grid, initial_arrays=start, num_rounds=int(config["rounds"]))
    (weights,) = done.arrays.to_numpy_ndarrays()
    print(f"weights {weights.round(3).tolist()}, true ones [1.0, -2.0, 0.5]")
    if config["result"]:
        np.save(Path(str(config["result"])), weights)
