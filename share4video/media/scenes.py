"""Where a video cuts from one scene to the next. Runs in the guarded worker only (``guard.py``).

PySceneDetect's adaptive detector judges every frame; it is given our own frames at their own presentation
times, so that variable frame rates, edit lists and late starts are right.
"""

from __future__ import annotations

import cv2
import numpy as np
from scenedetect import AdaptiveDetector
from scenedetect.common import FrameTimecode, Timecode

from share4video.media import frame_source
from share4video.media.frame_source import open_video
from share4video.media.inspection import read_timeline
from share4video.media.limits import Limits
from share4video.media.painter import Painter

_SIDE = 256  # pixels of the longer side of a picture; PySceneDetect, too, looks at about so many


def find_cuts(path: str, limits: Limits, threshold: float, min_scene_s: float) -> list[int]:
    """Return the times, in ticks, of the frames with which the second and every later scene begin.

    Args:
        threshold: how many times the change around it a cut's change must be (PySceneDetect's default: 3).
        min_scene_s: a cut sooner than this after its scene began is passed over.

    Raises:
        MediaError: the file is refused.
    """
    cv2.setNumThreads(1)  # its threads would reserve address space the limit counts
    with open_video(path, limits) as video:
        timeline = read_timeline(video)
    first = int(timeline.shown[0])
    rate = timeline.fps or 1
    detector = AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=0)
    painter = Painter(_SIDE)
    cuts: list[int] = []
    begin = first
    walk = frame_source.frames_on_show(path, limits, ticks=[int(pts) for pts in timeline.shown])
    for pts, shown in zip(timeline.shown, walk, strict=True):
        moment = FrameTimecode(Timecode(int(pts) - first, timeline.time_base), fps=rate)
        bgr = np.ascontiguousarray(painter.paint(shown.frame)[:, :, ::-1])
        for found in detector.process_frame(moment, bgr):
            cut = first + found.pts
            if (cut - begin) * timeline.time_base >= min_scene_s:
                cuts.append(cut)
                begin = cut
    return cuts
