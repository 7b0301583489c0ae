"""How a guarded worker talks: messages of a JSON head and, after some, raw bytes.

4 bytes  length of the head, big-endian
8 bytes  length of the body, big-endian
head     JSON object; its key ``kind`` says what it is
body     pixels of a ``block``, else nothing
"""

from __future__ import annotations

import json
import struct
from typing import Any

PREFIX = struct.Struct(">IQ")
MAX_HEAD_BYTES = 16 << 20


def encode(head: dict[str, Any], body_length: int = 0) -> bytes:
    """Return prefix and head of a message; the body, where there is one, is to follow."""
    data = json.dumps(head).encode()
    if len(data) > MAX_HEAD_BYTES:
        raise ValueError(f"a message head of {len(data)} bytes is over the {MAX_HEAD_BYTES} allowed")
    return PREFIX.pack(len(data), body_length) + data
