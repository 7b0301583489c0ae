"""What the gateway answers to a request it will not serve: a status, a code and one sentence."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from serving.gateway.metrics import REFUSALS
from share4video.errors import UserError


class Refusal(Exception):
    """A request that is the caller's to mend (4xx), or that the upstream could not answer (502 to 504).

    Args:
        status: the HTTP status.
        code: stable, snake_case; what a program looks at and what the metrics count.
        sentence: what a person reads, without a full stop.
        hang_up: close the connection after the answer, on a client that is still sending.
    """

    def __init__(self, status: int, code: str, sentence: str, *, hang_up: bool = False) -> None:
        self.status, self.code, self.sentence = status, code, f"{sentence.rstrip('.')}."
        self.hang_up = hang_up
        super().__init__(self.sentence)

    @classmethod
    def of(cls, error: UserError, *, code: str) -> Refusal:
        """Turn a mistake the library found in what the caller sent into an answer to the caller."""
        return cls(422, code, error.sentence())

    def body(self) -> dict[str, Any]:
        """Return the error object OpenAI's clients read."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.sentence, "type": kind, "param": None, "code": self.code}}

    def response(self) -> JSONResponse:
        REFUSALS.labels(self.code).inc()
        headers = {"Retry-After": "1"} if self.status in (429, 503) else {}
        if self.hang_up:
            headers["Connection"] = "close"
        return JSONResponse(self.body(), status_code=self.status, headers=headers)


async def answer_refusal(_request: Request, refusal: Exception) -> JSONResponse:
    """Answer a raised ``Refusal`` (signature of a FastAPI exception handler)."""
    assert isinstance(refusal, Refusal)
    return refusal.response()
