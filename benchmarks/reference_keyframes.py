"""The key-frame algorithm as published: every frame decoded and kept, both frames of each pair encoded.

Written from the published description of the released script. It differs in what is not the algorithm: the
encoder is the caller's, and pictures are written as JPEG, as ours are, where the script writes PNG.

    python -m benchmarks.reference_keyframes FILM KEPT_GB ENCODER

prints, as JSON, how many frames of a film it held when it was through, or when they filled so many GB.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from share4video.curation.encoders import FrameEncoder, frame_encoder
from share4video.curation.neural import OpenClipEncoder

INTERVAL_S, LONGEST_S, MAX_SIDE, JPEG_QUALITY = 2, 120, 1024, 92

Bgr = npt.NDArray[np.uint8]


def one_at_a_time(name: str) -> FrameEncoder:
    """Return the encoder of that name; CLIP computes one picture at a time."""
    encoder = frame_encoder(name)
    if not isinstance(encoder, OpenClipEncoder):
        return encoder
    return OpenClipEncoder(encoder.architecture, encoder.weights, batch=1)


def every_frame(film: Path, most_bytes: float = math.inf) -> tuple[list[Bgr], int]:
    """Return every frame of a film's first 120 s, or fewer that fill the bound; and its rate, an integer."""
    capture = cv2.VideoCapture(str(film))
    fps = int(capture.get(cv2.CAP_PROP_FPS))
    kept: list[Any] = []
    while len(kept) <= LONGEST_S * fps and (not kept or len(kept) * kept[0].nbytes < most_bytes):
        read, frame = capture.read()
        if not read:
            break
        kept.append(frame)
    capture.release()
    return kept, fps


def key_frames(film: Path, encoder: FrameEncoder, threshold: float) -> tuple[list[bytes], dict[str, float]]:
    """Return a film's key frames as JPEG, and the seconds that each part took."""
    began = time.perf_counter()
    frames, fps = every_frame(film)
    decoded = time.perf_counter()
    hop = math.ceil(fps * INTERVAL_S)
    keys = [0]
    for number in range(hop, len(frames), hop):
        one = encoder.encode([frames[keys[-1]]])[0]  # channels as OpenCV orders them: the script's mistake
        other = encoder.encode([frames[number]])[0]
        if float(one @ other) < threshold:
            keys.append(number)
    if len(keys) == 1 or len(frames) - keys[-1] >= hop:
        keys.append(len(frames) - 1)
    compared = time.perf_counter()
    pictures = [_jpeg(frames[number]) for number in keys]
    parts = {
        "decode_s": decoded - began,
        "encode_s": compared - decoded,
        "write_s": time.perf_counter() - compared,
    }
    return pictures, parts


def _jpeg(frame: Bgr) -> bytes:
    height, width = frame.shape[:2]
    scale = MAX_SIDE / max(width, height)
    shown = frame
    if scale < 1:
        size = (int(width * scale), int(height * scale))
        shown = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
    _, data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def main() -> None:
    """Hold the frames of a film, as far as they may go, with the encoder loaded."""
    film, most_bytes = Path(sys.argv[1]), float(sys.argv[2]) * 1e9
    encoder = one_at_a_time(sys.argv[3])
    encoder.encode([np.zeros((64, 64, 3), np.uint8)])
    frames, _ = every_frame(film, most_bytes)
    print(json.dumps({"frames": len(frames), "bytes_per_frame": frames[0].nbytes}), flush=True)
    time.sleep(1.0)  # so that the memory is seen at its fullest


if __name__ == "__main__":
    main()
