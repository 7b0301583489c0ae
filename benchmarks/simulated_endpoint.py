"""A chat-completions endpoint that only waits: real HTTP, a process of its own, a known amount of work.

    python benchmarks/simulated_endpoint.py MEAN_S SIGMA SLOTS

Prints its port and ends when its input closes. Every request takes a time of its own, drawn from a lognormal
distribution with a seed made of the request: whoever asks, whenever, the same work is the same time. At most
``SLOTS`` requests are worked on at once, those beyond wait in a queue. Each answer tells the time it was
worked on, in milliseconds, as its prompt tokens.

    POST /v1/chat/completions    the protocol
    GET  /stats                  {"received", "distinct", "work_s", "most_at_once"}
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import sys
from statistics import NormalDist
from typing import Any

BACKLOG = 1024
_LARGEST_BODY = 64 << 20


class Endpoint:
    """What the endpoint does and has seen."""

    def __init__(self, mean_s: float, sigma: float, slots: int) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.location, self.sigma = math.log(max(mean_s, 1e-9)) - sigma**2 / 2, sigma
        self.received, self.work_s, self.at_once, self.most_at_once = 0, 0.0, 0, 0
        self.distinct: set[bytes] = set()

    def stats(self) -> dict[str, Any]:
        return {
            "received": self.received,
            "distinct": len(self.distinct),
            "work_s": self.work_s,
            "most_at_once": self.most_at_once,
        }

    async def answer(self, body: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(body).digest()
        self.received += 1
        self.distinct.add(digest)
        async with self.slots:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            milliseconds = max(1, round(1000 * self.seconds(digest)))
            try:
                await asyncio.sleep(milliseconds / 1000)
            finally:
                self.at_once -= 1
        self.work_s += milliseconds / 1000
        text = f"Something that only {digest.hex()[:16]} says happens here, and then it is over."
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": milliseconds, "completion_tokens": len(text.split())}
        return {"choices": [choice], "usage": usage}

    def seconds(self, digest: bytes) -> float:
        """Return how long a request is worked on."""
        uniform = (int.from_bytes(digest[:6], "big") + 0.5) / 2**48
        return math.exp(self.location + self.sigma * NormalDist().inv_cdf(uniform))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
                size = int(fields.get("content-length", 0))
                body = await reader.readexactly(min(size, _LARGEST_BODY))
                found: dict[str, Any]
                if head[0].startswith("GET /stats"):
                    found = self.stats()
                else:
                    found = await self.answer(body)
                payload = json.dumps(found).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                    % (len(payload), payload)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone, or was killed, as some are here
        finally:
            writer.close()


async def main(mean_s: float, sigma: float, slots: int) -> None:
    endpoint = Endpoint(mean_s, sigma, slots)
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0, backlog=BACKLOG, limit=_LARGEST_BODY)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
