"""What secure aggregation costs, beside Flower's functions: ``make bench-privacy``.

Vectors of 1.2 million coordinates of 20 bits, every tenth client gone, in milliseconds: the best of
several, wall clock, and the processor time of that run where one thread works. The load of the
machine is stored with them, because other work changes wall clocks. The coordinator's figure is
from the signed set of survivors to the sum: secrets reconstructed, streams made and taken off;
unpacking and adding happens as updates arrive and is reported apart.

Flower runs in an environment of its own (``.venvs/flower``, made by ``make bench-peers`` or here).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from anabranch.privacy.secure_aggregation import FixedPoint, RoundContext, client
from anabranch.privacy.secure_aggregation.graph import neighbour_graph
from anabranch.privacy.secure_aggregation.group import Active, Group, KeyRing
from anabranch.privacy.secure_aggregation.key_messages import NonceList
from anabranch.privacy.secure_aggregation.keys import Keys, bound_seed, self_seed
from anabranch.privacy.secure_aggregation.messages import ShareDelivery
from anabranch.privacy.secure_aggregation.packing import pack, unpack
from anabranch.privacy.secure_aggregation.primitives import agreeing, public_identity
from anabranch.privacy.secure_aggregation.sharing import split
from anabranch.privacy.secure_aggregation.streams import add_streams, keystream
from anabranch.privacy.secure_aggregation.thresholds import Neighbourhood
from anabranch.privacy.secure_aggregation.unmasking import Revealed, unmask

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "privacy.json"
FLOWER = ROOT / ".venvs" / "flower" / "bin" / "python"
LENGTH, BITS = 1_200_000, 20
LIMITS = {
    "mask_k20": 16.0,
    "mask_k46": 33.0,
    "server_100_k20": 300.0,
    "server_1000_k46_two_cores": 2500.0,
}
"""Milliseconds that were set as goals."""

Figure = dict[str, float]


def best(work: Callable[[], object], repeats: int = 7) -> Figure:
    """The shortest of several runs, in milliseconds of wall clock and of processor time."""
    taken = []
    for _ in range(repeats):
        begun, used = time.perf_counter(), time.process_time()
        work()
        taken.append((time.perf_counter() - begun, time.process_time() - used))
    return {
        "wall_ms": round(1000 * min(wall for wall, _ in taken), 2),
        "processor_ms": round(1000 * min(used for _, used in taken), 2),
    }


def mask(neighbours: int) -> Figure:
    """One client's masks: its own stream and one with each neighbour."""
    seeds = [os.urandom(32) for _ in range(neighbours + 1)]
    vector = np.zeros(LENGTH, np.uint32)
    half = neighbours // 2
    return best(lambda: add_streams(vector, seeds[:half], seeds[half:], BITS), 15)


def cohort(clients: int, neighbours: int) -> tuple[Group, dict[str, Keys]]:
    """Keys and a graph with this many neighbours, whatever the threshold rule would choose."""
    identities = {
        f"client-{number:04d}": hashlib.sha256(b"%d" % number).digest() for number in range(clients)
    }
    zeros = bytes(32)
    context = RoundContext(
        run="benchmark",
        round=0,
        attempt=0,
        model_digest=zeros,
        plan_digest=zeros,
        ledger_head=zeros,
        roster={name: public_identity(identity) for name, identity in identities.items()},
        length=LENGTH,
        encoding=FixedPoint(1.0, 100.0, BITS),
        corrupt_share=0.05,
    )
    keys = {name: client.begin(context, name, identities[name])[0].keys for name in identities}
    adverts = {name: one.advert for name, one in keys.items()}
    graph = neighbour_graph(list(keys), neighbours, zeros)
    shape = Neighbourhood(neighbours, neighbours // 2 + 3)
    counts = replace(context.listed(clients), shape=shape)
    ring = KeyRing(context, adverts, counts, zeros)
    nonces = NonceList(context=context.digest, openings=())
    return Group(context, adverts, graph, counts, zeros, ring, nonces), keys


def left_over(group: Group, active: Active, keys: dict[str, Keys], alive: list[str]) -> np.ndarray:
    """What survivors' masks add up to: own streams, and those with clients that are gone."""
    there = frozenset(alive)
    plus, minus = [self_seed(keys[name].seed, active, name) for name in alive], []
    for name in alive:
        exchange = agreeing(keys[name].mask_secret)
        for peer in active.graph[name] - there:
            seed = bound_seed(exchange(group.adverts[peer].mask_key), active, name, peer)
            (plus if peer < name else minus).append(seed)
    total = np.zeros(LENGTH, np.uint32)
    add_streams(total, plus, minus, BITS, threads=os.cpu_count() or 1)
    return total


def server(clients: int, neighbours: int, threads: int, repeats: int) -> Figure:
    """From the survivors to the sum, when every tenth client vanished; the sum must be right."""
    group, keys = cohort(clients, neighbours)
    active, places = group.activate(keys), group.places
    dropped = set(list(keys)[::10])
    alive = [name for name in keys if name not in dropped]
    total = left_over(group, active, keys, alive)
    shares = {}
    for name, own in keys.items():
        secret = own.mask.root if name in dropped else own.seed
        holders = [places[peer] for peer in sorted(group.graph[name])]
        dealt = split(secret, group.threshold, holders, os.urandom)
        kept = group.graph[name] - dropped
        shares[name] = {peer: dealt[places[peer]] for peer in kept}
    revealed = Revealed(alive, shares)
    if unmask(group, active, total, revealed, threads=threads).any():
        raise RuntimeError("the masks did not cancel")
    return best(lambda: unmask(group, active, total, revealed, threads=threads), repeats)


def upload(neighbours: int) -> dict[str, float]:
    """Bytes that a client sends in all phases, beside the vector itself."""
    group, keys = cohort(neighbours + 1, neighbours)
    first = min(keys)
    waiting = client.AwaitingShares(keys[first], group)
    from anabranch.privacy.secure_aggregation.dealing import deal
    from anabranch.privacy.secure_aggregation.message import signed
    from anabranch.privacy.secure_aggregation.messages import ShareBundle

    bundles = {
        name: ShareBundle(
            context=group.context.digest, sender=name, shares=deal(one, group, os.urandom)
        )
        for name, one in keys.items()
    }
    delivery = ShareDelivery(
        context=group.context.digest,
        recipient=first,
        participants=tuple(sorted(keys)),
        shares=tuple(
            share
            for name in sorted(keys)
            for share in bundles[name].shares
            if share.recipient == first
        ),
    )
    _, sent = client.mask_input(waiting, delivery, np.zeros(LENGTH, np.uint32))
    bundle = len(signed(bundles[first], keys[first].identity).to_bytes())
    whole = len(keys[first].advert.to_bytes()) + bundle + len(sent.to_bytes())
    whole += 250 + 180 + 64 * neighbours + 250  # nonce, signature and shares that are revealed
    return {"bytes": whole, "times_vector": round(whole / (LENGTH * BITS / 8), 4)}


def flower() -> dict[str, object]:
    """Flower's functions on the same machine, minutes apart; empty where it can not be had."""
    if not FLOWER.exists():
        made = FLOWER.parent.parent
        subprocess.run([sys.executable, "-m", "venv", str(made)], check=True)
        install = [str(FLOWER), "-m", "pip", "install", "--quiet", "flwr", "numpy"]
        if subprocess.run(install, check=False).returncode:
            return {}
    script = ROOT / "benchmarks" / "peers" / "flower_masks.py"
    done = subprocess.run(
        [str(FLOWER), str(script)], capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return {}
    found: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measured(quick: bool) -> dict[str, object]:
    """All figures."""
    vector = keystream(os.urandom(32), LENGTH, BITS)
    packed = pack(vector, BITS)
    total = np.zeros(LENGTH, np.uint32)
    figures: dict[str, object] = {
        "load_before": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count() or 1,
        "mask_k20": mask(20),
        "mask_k46": mask(46),
        "pack": best(lambda: pack(vector, BITS)),
        "unpack_and_add": best(lambda: np.add(total, unpack(packed, LENGTH, BITS), out=total)),
        "upload_k46": upload(46),
        "server_100_k20": server(100, 20, 1, 5),
    }
    if not quick:
        figures["server_1000_k46_two_cores"] = server(1000, 46, 2, 3)
    figures["flower"] = flower()
    figures["load_after"] = round(os.getloadavg()[0], 2)
    figures["goals_ms"] = LIMITS
    return figures


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the 1,000 clients")
    quick = parser.parse_args().quick
    figures = measured(quick)
    print(json.dumps(figures, indent=2))
    if not quick:
        stored = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
        stored["secure_aggregation"] = figures
        RESULTS.write_text(json.dumps(stored, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
