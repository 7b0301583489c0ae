"""Frames of a synthetic clip: anti-aliased shapes on a textured ground, drawn with numpy."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from share4video.synthetic.world import PAN_DISTANCE, SIZES, Clip, Seen, State

Rgb = npt.NDArray[np.uint8]

SIDE = 256
PALETTE = {
    "red": (215, 40, 40),
    "green": (35, 170, 60),
    "blue": (45, 85, 225),
    "yellow": (240, 205, 40),
}
GROUND = {"grey": 125.0, "dark": 60.0, "light": 195.0}
TEXTURE_CONTRAST = 26.0
_REACH = 3  # pans in either direction that a backdrop has room for


@lru_cache(maxsize=64)
def _texture(seed: int, side: int) -> npt.NDArray[np.float32]:
    """Smooth noise of about six blobs per side, [side, side * (1 + room for pans)], in [-1, 1]."""
    rng = np.random.default_rng([seed, 7])
    width = int(side * (1 + 2 * _REACH * PAN_DISTANCE))
    coarse = rng.uniform(0, 255, size=(6, round(6 * width / side))).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((width, side), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32) / 127.5 - 1.0


def render(clip: Clip, time_s: float, side: int = SIDE) -> Rgb:
    """Return the frame at ``time_s`` as RGB uint8 [side, side, 3]."""
    return render_state(clip.state_at(time_s), clip.seed, side)


def render_state(state: State, texture_seed: int, side: int = SIDE) -> Rgb:
    """Draw a state on the texture that belongs to ``texture_seed`` and the state's background."""
    texture = _texture(texture_seed * 3 + list(GROUND).index(state.background), side)
    left = round((_REACH * PAN_DISTANCE + state.camera_x) * side)
    left = min(max(left, 0), texture.shape[1] - side)
    ground = GROUND[state.background] + TEXTURE_CONTRAST * texture[:, left : left + side]
    frame = np.repeat(ground[:, :, None], 3, axis=2)
    for seen in state.bodies:
        _draw(frame, seen, side)
    return np.clip(frame + 0.5, 0, 255).astype(np.uint8)


def _draw(frame: npt.NDArray[np.float32], seen: Seen, side: int) -> None:
    half = SIZES[seen.size] / 2 * side
    cx, cy = seen.x * side, seen.y * side
    x0, x1 = max(0, int(cx - half - 2)), min(side, int(cx + half + 3))
    y0, y1 = max(0, int(cy - half - 2)), min(side, int(cy + half + 3))
    xs = np.arange(x0, x1, dtype=np.float32)[None, :] + 0.5 - cx
    ys = np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5 - cy
    if seen.shape == "circle":
        outside = np.sqrt(xs**2 + ys**2) - half
    elif seen.shape == "square":
        outside = np.maximum(np.abs(xs), np.abs(ys)) - half * 0.9
    else:  # triangle, point up: two slanted sides and the base
        slant = (2 * np.abs(xs) - (ys + half)) / np.sqrt(5.0)
        outside = np.maximum(slant, ys - half * 0.95)
    cover = np.clip(0.5 - outside, 0.0, 1.0)[:, :, None]
    patch = frame[y0:y1, x0:x1]
    frame[y0:y1, x0:x1] = patch * (1 - cover) + cover * np.array(PALETTE[seen.colour], dtype=np.float32)
