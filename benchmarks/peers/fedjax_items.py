"""fedjax: `federated_averaging` with its jit backend, one process.

Written as its quick start shows: a gradient function, `fedjax.optimizers.sgd` at both ends, the
clients' arrays in memory, no evaluation. XLA keeps its own threads.
"""

from __future__ import annotations

import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

if not hasattr(jax, "tree_map"):  # dropped by JAX after fedjax's last release
    jax.tree_map = jax.tree_util.tree_map

import fedjax
from fedjax.algorithms import fed_avg

from benchmarks.items import BATCH, LEARNING_RATE, Item, Work, load_initial
from benchmarks.outcome import Outcome

__all__ = ["run"]

SHAPES = {
    "logistic": [(10, 784), (10,)],
    "mlp": [(200, 784), (200,), (10, 200), (10,)],
    "cnn": [
        *[(32, 1, 5, 5), (32,), (64, 32, 5, 5), (64,)],
        *[(512, 3136), (512,), (10, 512), (10,)],
    ],
}
"""Shapes of the parameters in PyTorch's order."""


def run(item: Item, work: Work, rounds: int) -> Outcome:
    """Simulate ``rounds`` rounds of ``item``."""
    started = time.perf_counter()
    algorithm = fed_avg.federated_averaging(
        _gradient(item.model),
        fedjax.optimizers.sgd(LEARNING_RATE),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=BATCH, num_epochs=1),
    )
    clients = _clients(item, work)
    state = algorithm.init(_unflatten(item.model, load_initial(item)))
    keys = jax.random.split(jax.random.PRNGKey(0), item.cohort)
    cohorts = [
        [(c, clients[c], key) for c, key in zip(cohort, keys, strict=True)]
        for cohort in work.cohorts[:rounds].tolist()
    ]
    _train(algorithm, state, cohorts)  # JAX compiles once for each new size of a last batch
    start_up, used = time.perf_counter() - started, time.process_time()
    state, seconds = _train(algorithm, state, cohorts)
    cores = max(1, round((time.process_time() - used) / sum(seconds)))
    final = np.concatenate([np.asarray(value).reshape(-1) for value in state.params])
    versions = f"fedjax {version('fedjax')}, jax {jax.__version__}"
    return Outcome(np.array(seconds), final, start_up, cores, versions)


class InOrder(fedjax.ClientDataset):
    """One epoch in order with a short last batch; fedjax's own view fills it up with others."""

    def shuffle_repeat_batch(self, hparams=None, **named):
        """Batches as the benchmark defines them."""
        return self.batch(batch_size=BATCH)


def _train(algorithm, state, cohorts):
    """Run all rounds from ``state``: the last state and the seconds of each round."""
    seconds = []
    for cohort in cohorts:
        begin = time.perf_counter()
        state, _ = algorithm.apply(state, cohort)
        jax.block_until_ready(state.params)
        seconds.append(time.perf_counter() - begin)
    return state, seconds


def _clients(item: Item, work: Work) -> list[fedjax.ClientDataset]:
    bounds = zip(work.offsets[:-1], work.offsets[1:], strict=True)
    return [InOrder({"x": work.x[a:b], "y": work.y[a:b]}) for a, b in bounds]


def _unflatten(model: str, vector: np.ndarray) -> list[jax.Array]:
    sizes = [int(np.prod(shape)) for shape in SHAPES[model]]
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    return [jnp.asarray(p.reshape(s)) for p, s in zip(parts, SHAPES[model], strict=True)]


def _gradient(model: str):
    """Gradient of the mean cross entropy with respect to the parameters."""
    forward = _convolutional if model == "cnn" else _dense

    def loss(parameters, batch, rng):
        scores = jax.nn.log_softmax(forward(parameters, batch["x"]))
        return -jnp.take_along_axis(scores, batch["y"][:, None], axis=1).mean()

    return jax.grad(loss)


def _dense(parameters, x):
    """Linear layers with ReLU between them."""
    *hidden, (weight, bias) = zip(parameters[::2], parameters[1::2], strict=True)
    for hidden_weight, hidden_bias in hidden:
        x = jax.nn.relu(x @ hidden_weight.T + hidden_bias)
    return x @ weight.T + bias


def _convolutional(parameters, x):
    """Two 5x5 convolutions with pooling, then linear layers."""
    x = x.reshape(-1, 1, 28, 28)
    for weight, bias in (parameters[0:2], parameters[2:4]):
        x = jax.lax.conv(x, weight, (1, 1), "SAME") + bias[None, :, None, None]
        x = jax.nn.relu(x)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return _dense(parameters[4:], x.reshape(len(x), -1))
