"""Clients that cost little: many in one process, each with one connection, no training.

They speak the protocol as `docs/protocol.md` describes it: a session from a signed challenge where
there is a roster, a long poll, the download, an update with its checksum, the fate with the next
poll. What they send is one prepared update.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from anabranch.fleet.identity import Identity
from anabranch.runtimes.http.messages import content_digest
from anabranch.runtimes.http.statements import SESSION, session_claim

__all__ = ["LightClient", "attend"]


@dataclass
class LightClient:
    """One client.

    Attributes:
        url: of the coordinator.
        name: of the client.
        update: what it answers to every task.
        identity: its key; None on loopback without identities.
        coordinator: the coordinator's public key, hexadecimal.
    """

    url: str
    name: str
    update: bytes
    identity: Identity | None = None
    coordinator: str = ""
    token: str = ""
    heard: list[str] = field(default_factory=list)

    async def connect(self, context: ssl.SSLContext | None) -> None:
        parts = urlsplit(self.url)
        self.host = parts.netloc
        self.reader, self.writer = await asyncio.open_connection(
            parts.hostname, parts.port, ssl=context, limit=1 << 20
        )
        if self.identity is not None:
            challenge = (await self.ask("POST", "/v1/challenge"))["challenge"]
            nonce = secrets.token_hex(32)
            claim = session_claim(self.name, challenge, nonce, self.coordinator)
            body = {
                "client": self.name,
                "challenge": challenge,
                "nonce": nonce,
                "signature": self.identity.sign(SESSION, claim).hex(),
            }
            answer = await self.ask("POST", "/v1/session", json.dumps(body).encode())
            self.token = answer["token"]

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: str = ""
    ) -> dict[str, str]:
        return json.loads(await self.send(method, path, body, headers))

    async def send(self, method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
        who = f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        length = f"Content-Length: {len(body)}\r\n" if method != "GET" else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\n{who}{length}{headers}\r\n"
        self.writer.write(head.encode() + body)
        status = int((await self.reader.readuntil(b"\r\n")).split(b" ")[1])
        size = 0
        while line := (await self.reader.readuntil(b"\r\n")).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        content = await self.reader.readexactly(size)
        if status >= 400:
            raise RuntimeError(f"{self.name}: {status} {content[:200]!r}")
        return content

    async def work(self) -> None:
        """Answer tasks until the run is over."""
        who = "" if self.token else f"&client={quote(self.name)}"
        while True:
            heard = "".join(f"&heard={task}" for task in self.heard)
            contact = json.loads(await self.send("GET", f"/v1/tasks?wait=20{heard}{who}"))
            self.heard = [fate["task"] for fate in contact["fates"]]
            task = contact["task"]
            if task is None:
                if contact["closed"] or contact["again"]:
                    return
                continue
            await self.send("GET", f"/v1/blobs/{task['broadcast']}")
            path = f"/v1/tasks/{task['task']}/update?{who[1:]}"
            headers = f"Content-Digest: {content_digest(self.update)}\r\n"
            await self.send("PUT", path, self.update, headers)


async def attend(clients: list[LightClient], ca: str, ready: asyncio.Event) -> None:
    """All clients at once, until the run is over or the coordinator is gone."""
    context = ssl.create_default_context(cafile=ca) if ca else None
    for start in range(0, len(clients), 50):
        await asyncio.gather(*(client.connect(context) for client in clients[start : start + 50]))
    ready.set()
    await asyncio.gather(*(client.work() for client in clients), return_exceptions=True)
