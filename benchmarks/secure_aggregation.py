"""What the masks of secure aggregation cost: ``python -m benchmarks.secure_aggregation``.

One core, vectors of 1.2 million coordinates of 20 bits. Times are the best of several, in
milliseconds, wall clock; the load of the machine is printed with them. The coordinator's figure is
from the set of survivors to the sum: secrets reconstructed, streams made and taken off.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable

import numpy as np

from anabranch.privacy.secure_aggregation import FixedPoint, RoundContext, client
from anabranch.privacy.secure_aggregation.graph import neighbour_graph
from anabranch.privacy.secure_aggregation.group import Active, Group
from anabranch.privacy.secure_aggregation.keys import Keys, pair_seed, self_seed
from anabranch.privacy.secure_aggregation.packing import pack, unpack
from anabranch.privacy.secure_aggregation.primitives import public_identity
from anabranch.privacy.secure_aggregation.sharing import split
from anabranch.privacy.secure_aggregation.streams import Lanes, add_streams, keystream
from anabranch.privacy.secure_aggregation.unmasking import unmask

LENGTH, BITS = 1_200_000, 20


def best(work: Callable[[], object], repeats: int = 7) -> float:
    """The shortest of several runs, in milliseconds."""
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return round(1000 * min(taken), 2)


def mask(neighbours: int) -> float:
    """One client's masks: its own stream and one with each neighbour."""
    seeds = [os.urandom(32) for _ in range(neighbours + 1)]
    vector = np.zeros(LENGTH, np.uint32)
    half = neighbours // 2
    return best(lambda: add_streams(vector, seeds[:half], seeds[half:], BITS))


def cohort(clients: int, neighbours: int) -> tuple[Group, dict[str, Keys]]:
    """Keys and a graph with this many neighbours, whatever the threshold rule would choose."""
    identities = {
        f"client-{number:04d}": hashlib.sha256(b"%d" % number).digest() for number in range(clients)
    }
    context = RoundContext(
        run="benchmark",
        round=0,
        attempt=0,
        model_digest=bytes(32),
        plan_digest=bytes(32),
        ledger_head=bytes(32),
        roster={name: public_identity(identity) for name, identity in identities.items()},
        length=LENGTH,
        encoding=FixedPoint(1.0, 100.0, BITS),
        corrupt_share=0.05,
    )
    keys = {name: client.begin(context, name, identities[name])[0].keys for name in identities}
    adverts = {name: one.advert for name, one in keys.items()}
    graph = neighbour_graph(list(keys), neighbours, bytes(32))
    return Group(context, adverts, graph, neighbours // 2 + 1, bytes(32)), keys


def masks_of(keys: Keys, group: Group, active: Active, total: Lanes) -> None:
    """Add the masks of one client to the total."""
    plus, minus = [self_seed(keys.seed, active, keys.name)], []
    for peer in active.graph[keys.name]:
        public = group.adverts[peer].mask_key
        seed = pair_seed(keys.mask_secret, public, active, keys.name, peer)
        (plus if peer < keys.name else minus).append(seed)
    add_streams(total, plus, minus, BITS)


def server(clients: int, neighbours: int) -> float:
    """From the survivors to the sum, when every tenth client vanished; the sum must be right."""
    group, keys = cohort(clients, neighbours)
    active, places = group.activate(keys), group.places
    dropped = set(list(keys)[::10])
    alive = [name for name in keys if name not in dropped]
    total = np.zeros(LENGTH, np.uint32)
    for name in alive:
        masks_of(keys[name], group, active, total)
    shares = {}
    for name, own in keys.items():
        secret = own.mask_secret if name in dropped else own.seed
        holders = [places[peer] for peer in sorted(group.graph[name])]
        dealt = split(secret, group.threshold, holders, os.urandom)
        kept = group.graph[name] - dropped
        shares[name] = {peer: dealt[places[peer]] for peer in kept}
    if unmask(group, active, total, alive, shares).any():
        raise RuntimeError("the masks did not cancel")
    return best(lambda: unmask(group, active, total, alive, shares), 5)


def main() -> None:
    """Measure and print JSON."""
    vector = keystream(os.urandom(32), LENGTH, BITS)
    packed = pack(vector, BITS)
    figures = {
        "load": round(os.getloadavg()[0], 2),
        "mask_k20_ms": mask(20),
        "mask_k46_ms": mask(46),
        "pack_ms": best(lambda: pack(vector, BITS)),
        "unpack_ms": best(lambda: unpack(packed, LENGTH, BITS)),
        "upload_bytes": len(packed),
        "server_100_k20_ms": server(100, 20),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
