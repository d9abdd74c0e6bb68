"""A network that fails, for tests: a proxy that cuts, delays, throttles and repeats connections.

It knows bytes only, so it stands in front of TLS too. Where it cuts is drawn from a seed.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

__all__ = ["FaultProxy", "Weather"]


@dataclass(frozen=True)
class Weather:
    """How bad the line is.

    Attributes:
        cut: bytes, both directions together, after which a connection is cut, from and to; None
            never cuts.
        share: of the connections that are cut at all.
        delay: most seconds by which a piece is late.
        rate: bytes a second of each direction; None for no limit.
        repeat: share of the connections whose requests are sent a second time when they are over,
            byte for byte; over TLS no server can read them.
    """

    cut: tuple[int, int] | None = None
    share: float = 1.0
    delay: float = 0.0
    rate: float | None = None
    repeat: float = 0.0


class FaultProxy:
    """Listens on a loopback port and passes everything on to another one, as the weather allows.

    Args:
        listen: port of its own.
        target: port that it passes to.
        weather: may be exchanged at any time.
        seed: of where it cuts.
    """

    def __init__(self, listen: int, target: int, weather: Weather, seed: int = 0) -> None:
        self.weather, self.cuts, self.connections, self.repeated = weather, 0, 0, 0
        self._listen, self._target = listen, target
        self._draw = np.random.default_rng(seed)
        # Not what a policy says, which any library in the process may have set.
        self._loop = asyncio.SelectorEventLoop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()
        assert self._ready.wait(10.0)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        starting = asyncio.start_server(self._serve, "127.0.0.1", self._listen)
        server = self._loop.run_until_complete(starting)
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self, near: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far, ask = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            answer.transport.abort()
            return
        weather, left = self.weather, [float("inf")]
        if weather.cut is not None and self._draw.random() < weather.share:
            left[0] = float(self._draw.integers(*weather.cut))
        asked = bytearray()
        both = [self._pipe(near, ask, left, weather, asked)]
        both.append(self._pipe(far, answer, left, weather))
        tasks = [asyncio.ensure_future(pipe) for pipe in both]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if left[0] <= 0:
            self.cuts += 1
            ask.transport.abort()  # as a cable that is pulled: no farewell to either side
            answer.transport.abort()
        for task in tasks:
            if left[0] <= 0:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in (ask, answer):
            writer.close()
        if weather.repeat and self._draw.random() < weather.repeat:
            await self._repeat(bytes(asked))

    async def _repeat(self, asked: bytes) -> None:
        """Send what was asked again, as a network or an attacker that plays it back may."""
        with suppress(ConnectionError, asyncio.TimeoutError):
            far, ask = await asyncio.open_connection("127.0.0.1", self._target)
            self.repeated += 1
            ask.write(asked)
            try:
                await asyncio.wait_for(far.read(), 1.0)  # nobody listens to the answers
            finally:
                ask.close()

    async def _pipe(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        left: list[float],
        weather: Weather,
        kept: bytearray | None = None,
    ) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            while piece := await reader.read(4096):
                if weather.delay:
                    await asyncio.sleep(float(self._draw.random()) * weather.delay)
                if weather.rate is not None:
                    await asyncio.sleep(len(piece) / weather.rate)
                sent = piece[: int(max(0.0, min(left[0], len(piece))))]
                if kept is not None:
                    kept += sent
                writer.write(sent)
                await writer.drain()
                left[0] -= len(piece)
                if left[0] <= 0:
                    return
            writer.write_eof() if writer.can_write_eof() else None
