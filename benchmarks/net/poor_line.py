"""A proxy that throttles and cuts: what stands between a phone and the coordinator."""

from __future__ import annotations

import asyncio
import threading
import time

__all__ = ["PoorLine"]

_PIECE = 2048


class PoorLine:
    """Forwards connections to ``port``; what goes up is slow, and cut after so many bytes.

    Args:
        port: of the coordinator on this machine.
        rate: bytes a second upwards, over all connections.
        cut: bytes upwards after which a connection is cut.

    Attributes:
        port: where clients connect.
        up: bytes that clients sent upwards.
        cuts: connections that were cut.
    """

    def __init__(self, port: int, rate: float, cut: int) -> None:
        self._target, self._rate, self._cut = port, rate, cut
        self.up = self.cuts = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait(10)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=_PIECE)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ahead, back = await asyncio.open_connection("127.0.0.1", self._target)
        down = asyncio.create_task(self._down(ahead, writer))
        sent, begun = 0, time.monotonic()
        while piece := await reader.read(_PIECE):
            self.up += len(piece)
            sent += len(piece)
            back.write(piece)
            await back.drain()
            wait = begun + sent / self._rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if sent >= self._cut:
                self.cuts += 1
                break
        down.cancel()
        writer.transport.abort()
        back.close()

    @staticmethod
    async def _down(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
