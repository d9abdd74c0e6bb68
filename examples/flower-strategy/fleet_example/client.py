"""A plain Flower ClientApp: nothing of Anabranch is installed at the nodes.

It answers with its arrays, ``num-examples``, and ``local-steps``, by which FedNova divides.
"""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def examples(partition: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a node, shapes (n, 3) and (n,): more at later nodes."""
    made = np.random.default_rng(partition)
    x = made.normal(size=(40 * (partition + 1), 3))
    return x, x @ np.array([1.0, -2.0, 0.5]) + 0.1 * made.normal(size=len(x))


def fit(weights: np.ndarray, partition: int, rate: float) -> tuple[np.ndarray, int]:
    """Plain gradient steps from ``weights``, shape (3,): as many as the node has tens of rows."""
    x, y = examples(partition)
    steps = len(x) // 10
    for _ in range(steps):
        weights = weights - rate * x.T @ (x @ weights - y) / len(x)
    return weights.astype(np.float32), steps


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of local work."""
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    partition = int(context.node_config["partition-id"])
    fitted, steps = fit(weights, partition, float(context.run_config["learning-rate"]))
    told = MetricRecord({"num-examples": len(examples(partition)[1]), "local-steps": steps})
    content = RecordDict({"arrays": ArrayRecord([fitted]), "metrics": told})
    return Message(content, reply_to=message)
