"""Lessons as arrays on disk, made once and read many times while a nano model trains.

Shape legend: P pictures, T tiles per picture, N patches per tile.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from share4video.evaluation import mvbench
from share4video.evaluation.questions import LETTERS
from share4video.media import compose
from share4video.synthetic import lessons, nano
from share4video.synthetic.language import MOVED
from share4video.synthetic.lessons import Lesson, Picture
from share4video.synthetic.render import SIDE
from share4video.synthetic.tokenizer import END
from share4video.synthetic.world import DIRECTIONS, SHAPES

if TYPE_CHECKING:
    from transformers import LlavaNextProcessor

Size = tuple[int, int]  # (height, width) in pixels
_REPLY = re.compile(re.escape(mvbench.PREFILL) + r"[A-Z]\) (.+)")
_OPTION = re.compile(r"^\([A-Z]\) (.+)$", re.MULTILINE)
FIRST_BODY = 4  # classes below are ground
PATCHES = nano.IMAGE_SIDE // nano.PATCH
POINTS, MIN_POINTS = 4, 4  # points per side of a patch; how many of all a body must cover


def tile_grid(size: Size) -> tuple[Size, Size, Size]:
    """Return (tile canvas, scaled image, padding before it) as LLaVA-NeXT's processor chooses them."""
    from transformers.image_processing_utils import select_best_resolution

    height, width = size
    canvas_h, canvas_w = select_best_resolution(size, nano.PINPOINTS)
    scale = min(canvas_w / width, canvas_h / height)
    if canvas_w / width < canvas_h / height:
        scaled = (min(math.ceil(height * scale), canvas_h), canvas_w)
    else:
        scaled = (canvas_h, min(math.ceil(width * scale), canvas_w))
    return (canvas_h, canvas_w), scaled, ((canvas_h - scaled[0]) // 2, (canvas_w - scaled[1]) // 2)


@cache
def _patch_points(size: Size, per_side: int) -> npt.NDArray[np.float64]:
    """Points spread over every patch, [T, N, P, 2] as (y, x) shares of the image's sides."""
    side = nano.IMAGE_SIDE
    corner = np.arange(PATCHES) * nano.PATCH
    ys, xs = (v.ravel() for v in np.meshgrid(corner, corner, indexing="ij"))
    within = (np.arange(per_side) + 0.5) * nano.PATCH / per_side
    dy, dx = (v.ravel() for v in np.meshgrid(within, within, indexing="ij"))
    y, x = ys[:, None] + dy, xs[:, None] + dx
    tiles = [np.stack([y / side, x / side], axis=-1)]
    (canvas_h, canvas_w), (scaled_h, scaled_w), (pad_y, pad_x) = tile_grid(size)
    for top in range(0, canvas_h, side):
        for left in range(0, canvas_w, side):
            tiles.append(np.stack([(y + top - pad_y) / scaled_h, (x + left - pad_x) / scaled_w], axis=-1))
    return np.stack(tiles)


def patch_labels(picture: Picture) -> npt.NDArray[np.uint8]:
    """Return what covers every patch, [T, N, 3]: class and offset of its centre as ``Picture`` has them.

    A body counts where it covers a few of the points looked at: many in a grid are smaller than a patch.
    """
    width, height = picture.labels.size
    drawn = np.asarray(picture.labels)
    extent = np.array([height, width])

    def look(points_P2: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        at = np.floor(points_P2 * extent).astype(int)
        inside = np.all((at >= 0) & (at < extent), axis=-1)
        found: npt.NDArray[np.uint8] = drawn[at[..., 0].clip(0, height - 1), at[..., 1].clip(0, width - 1)]
        inside &= ~np.all(found == found[..., :1], axis=-1)  # grey: white bands, and a strip's printed labels
        kind = np.where(inside, found[..., 0] // lessons.LABEL_STEP, 0)
        kind[kind >= lessons.LABELS] = 0  # blends of the two
        return np.concatenate([kind[..., None].astype(np.uint8), found[..., 1:]], axis=-1)

    points = _patch_points((height, width), POINTS)
    seen, labels = look(points), look(points.mean(axis=2))
    # What a point says of the distance to the body's centre, said of the patch's centre.
    moved = (points - points.mean(axis=2, keepdims=True))[..., ::-1] * extent[::-1] / SIDE
    offsets = seen[..., 1:] + moved * lessons.OFFSET_STEP
    for kind in range(FIRST_BODY, lessons.LABELS):
        of_it = seen[..., 0] == kind
        most = of_it.sum(axis=-1) >= MIN_POINTS
        if most.any():
            mean = (offsets * of_it[..., None]).sum(axis=2) / np.maximum(of_it.sum(axis=-1), 1)[..., None]
            labels[most, 0] = kind
            labels[most, 1:] = np.round(mean[most]).clip(0, 255)
    return labels


@dataclass(frozen=True)
class Motion:
    """Of every patch of a stacked pair or a grid, what the body on it does.

    Attributes:
        place: [T, N, 2], where the body's centre is, as (right, down) shares of its frame's side.
        on_body: [T, N], where there is a body.
        moved: [T, N, 2], how far it has moved since the frame before; in the first frame, to the next.
        known: [T, N], where that is known, because both frames show the body.
        frame: [T, N], the number of the frame the patch's centre lies in.
    """

    place: npt.NDArray[np.float32]
    on_body: npt.NDArray[np.bool_]
    moved: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]
    frame: npt.NDArray[np.int64]

    def ways(self) -> npt.NDArray[np.int64]:
        """Return [T, N]: 0 where no caption would name the motion, else 1 + its direction's number."""
        along_TNW = self.moved @ np.array(list(DIRECTIONS.values()), np.float32).T
        return np.where(along_TNW.max(axis=-1) < MOVED, 0, 1 + along_TNW.argmax(axis=-1))


def motion(labels: npt.NDArray[np.uint8], size: Size) -> Motion:
    """Read from the labels of an image of this size how bodies move over its frames."""
    height, width = size
    pitch = SIDE + compose.GRID_BAND
    columns = (width + compose.GRID_BAND) // pitch
    centres = _patch_points(size, 1)[:, :, 0]
    y, x = centres[..., 0] * height, centres[..., 1] * width
    frame = (y // pitch).astype(int) * columns + (x // pitch).astype(int)
    own = np.stack([x % pitch, y % pitch], axis=-1) / SIDE
    kind = labels[..., 0].astype(int) - FIRST_BODY
    place = (own + (labels[..., 1:].astype(np.float32) - 128) / lessons.OFFSET_STEP).astype(np.float32)
    moved = np.zeros((*kind.shape, 2), np.float32)
    known = np.zeros(kind.shape, bool)
    for shape in range(len(SHAPES)):  # no clip repeats a shape, and a body keeps its own
        here = (kind >= 0) & (kind % len(SHAPES) == shape)
        places = {int(f): place[here & (frame == f)].mean(axis=0) for f in np.unique(frame[here])}
        for number in places:
            before, after = (number - 1, number) if number > 0 else (0, 1)
            if before in places and after in places:
                at = here & (frame == number)
                moved[at] = places[after] - places[before]
                known |= at
    return Motion(place, kind >= 0, moved, known, frame)


def write_shard(
    folder: Path,
    index: int,
    pictures: Sequence[Picture],
    taught: Sequence[Lesson],
    processor: LlavaNextProcessor,
) -> None:
    """Write one shard; its JSON file, written last, says that the shard is whole."""
    tiles: dict[str, list[npt.NDArray[np.uint8]]] = defaultdict(list)
    labels: dict[str, list[npt.NDArray[np.uint8]]] = defaultdict(list)
    places = []
    for picture in pictures:
        width, height = picture.image.size
        out = processor.image_processor(picture.image, return_tensors="np", do_pad=False)
        pixels = np.asarray(out["pixel_values"][0])
        name = f"{picture.layout}-{height}x{width}"
        places.append((name, len(tiles[name])))
        tiles[name].append(np.round((pixels * 0.5 + 0.5) * 255).astype(np.uint8))
        labels[name].append(patch_labels(picture))
    folder.mkdir(parents=True, exist_ok=True)
    for name in tiles:
        np.save(folder / f"{index:05d}-{name}-tiles.npy", np.stack(tiles[name]))
        np.save(folder / f"{index:05d}-{name}-labels.npy", np.stack(labels[name]))
    rows = [
        {
            "role": lesson.role,
            "picture": places[lesson.picture] if lesson.picture is not None else None,
            "turns": [[turn.role, turn.text, turn.felt] for turn in lesson.turns],
        }
        for lesson in taught
    ]
    part = folder / f"{index:05d}.json.part"
    part.write_text(json.dumps(rows))
    part.rename(folder / f"{index:05d}.json")


@dataclass(frozen=True)
class Choice:
    """Where a question's options end, and the number of the right one; ``felt`` where no letter is taught."""

    ends: tuple[int, ...]
    right: int
    felt: bool


@dataclass(frozen=True)
class Row:
    """A lesson as token ids; ``picture`` is (shard, array name, index).

    ``hints`` are (position, token): where a question ends, and the word that answers it. ``felt`` are
    (position, number of the direction): where a question ends, and the direction that is its answer.
    ``offered`` are (position, letters): where a reply to a question without an answer would name an option,
    and the tokens of the letters it may name.
    """

    role: str
    picture: tuple[int, str, int] | None
    ids: npt.NDArray[np.int32]
    supervised: npt.NDArray[np.bool_]
    hints: tuple[tuple[int, int], ...] = ()
    felt: tuple[tuple[int, int], ...] = ()
    choices: tuple[Choice, ...] = ()
    offered: tuple[tuple[int, tuple[int, ...]], ...] = ()


def own_file(folder: Path, shard: int) -> Path:
    """Return where a shard's sliding lessons are that hold the captioner's own captions."""
    return folder / f"own-{shard:05d}.json"


class LessonStore:
    """The shards of one folder, tokenised, with pictures read through memory maps.

    ``own`` are sliding lessons that hold the captioner's own captions, once `read_own` has read them.
    """

    def __init__(self, folder: Path, shards: Sequence[int], processor: LlavaNextProcessor) -> None:
        self.folder, self._tokenizer = folder, processor.tokenizer
        self._arrays: dict[Path, npt.NDArray[np.uint8]] = {}
        self.rows: dict[str, list[Row]] = defaultdict(list)
        self.own: list[Row] = []
        for shard in shards:
            for row in self._read(shard, folder / f"{shard:05d}.json"):
                self.rows[row.role].append(row)

    def read_own(self, shard: int) -> None:
        self.own += self._read(shard, own_file(self.folder, shard))

    def _read(self, shard: int, path: Path) -> list[Row]:
        found = []
        for row in json.loads(path.read_text()):
            picture = (shard, *row["picture"]) if row["picture"] else None
            found.append(self.tokenise(row["role"], picture, row["turns"]))
        return found

    def tokenise(
        self, role: str, picture: tuple[int, str, int] | None, turns: Sequence[Sequence[Any]]
    ) -> Row:
        """Return the lesson as the chat template gives it, with one token for the image."""
        ids: list[int] = []
        supervised: list[bool] = []
        hints: list[tuple[int, int]] = []
        felt: list[tuple[int, int]] = []
        choices: list[Choice] = []
        offered: list[tuple[int, tuple[int, ...]]] = []
        question_end: int | None = None
        ends: dict[str, int] = {}
        image = "<image>\n" if picture is not None else ""
        for speaker, text, right in turns:
            head, body = f"<|{speaker}|>\n", text + END
            if speaker == "user":
                head, image = head + image, ""
            before = len(ids)
            for piece, taught in ((head, False), (body, speaker == "assistant")):
                found = self._ids(piece)
                ids += found
                supervised += [taught] * len(found)
            if speaker == "user":
                asked, mark, _ = text.partition("?\nOptions:")
                question_end = before + len(self._ids(f"{head}{asked}?")) - 1 if mark else None
                ends = {
                    option[1]: before + len(self._ids(head + text[: option.end()])) - 1
                    for option in _OPTION.finditer(text)
                }
            if question_end is not None and right:
                choices.append(Choice(tuple(ends.values()), list(ends).index(right), felt=True))
                if right in DIRECTIONS:
                    felt.append((question_end, list(DIRECTIONS).index(right)))
                begun = self._ids(f"<|assistant|>\n{mvbench.PREFILL}")
                ids += begun
                supervised += [False] * len(begun)
                offered.append((len(ids) - 1, tuple(self._ids(letter)[0] for letter in LETTERS[: len(ends)])))
            reply = _REPLY.fullmatch(text)
            if speaker == "assistant" and question_end is not None and reply:
                choices.append(Choice(tuple(ends.values()), list(ends).index(reply[1]), felt=False))
                if " " not in reply[1]:
                    hints.append((question_end, self._ids(f" {reply[1]}")[0]))
        return Row(
            role,
            picture,
            np.array(ids, np.int32),
            np.array(supervised),
            tuple(hints),
            tuple(felt),
            tuple(choices),
            tuple(offered),
        )

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def _array(self, shard: int, name: str, what: str) -> npt.NDArray[np.uint8]:
        path = self.folder / f"{shard:05d}-{name}-{what}.npy"
        if path not in self._arrays:
            self._arrays[path] = np.load(path, mmap_mode="r")
        return self._arrays[path]

    def tiles(self, picture: tuple[int, str, int]) -> npt.NDArray[np.uint8]:
        """Pixels [T, 3, side, side]."""
        return np.array(self._array(picture[0], picture[1], "tiles")[picture[2]])

    def labels(self, picture: tuple[int, str, int]) -> npt.NDArray[np.uint8]:
        """What covers each patch, [T, N, 3]."""
        return np.array(self._array(picture[0], picture[1], "labels")[picture[2]])


def image_size(picture: tuple[int, str, int]) -> Size:
    """The composed image's (height, width), as its array's name holds it."""
    height, width = picture[1].rsplit("-", 1)[1].split("x")
    return int(height), int(width)
