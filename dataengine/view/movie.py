"""A video as an mp4 that any player shows: photograph, keypoints, measured depth side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.errors import RecordError
from dataengine.record.video import Video
from dataengine.view.palette import Rgb
from dataengine.view.panels import available, clip_range_m, draw
from dataengine.view.typography import Text, draw_texts

PANELS = ("rgb", "skeleton", "depth_sim")
ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "18", "preset": "medium", "threads": "1", "x264-params": "threads=1:sliced-threads=0"}),
    ("mpeg4", {"qscale": "3", "threads": "1"}),
)
"""In order of preference. One thread, so that equal frames give equal bytes."""
SHORT_CLIP_FPS, SHORT_CLIP_S = 4.0, 4.0
"""A clip of a few frames is shown slowly, to and fro, this long."""


def movie_frames(video: Video, panels: Sequence[str] = PANELS, gap_px: int = 4) -> list[Rgb]:
    """One picture per frame: the panels side by side, each with its name in the corner.

    RecordError when the video has none of the panels' modalities.
    """
    shown = available(video, tuple(panels))
    if not shown:
        raise RecordError(f"movie: the video has none of {', '.join(panels)}; it has {', '.join(video.images) or 'no images'}")
    range_m = clip_range_m(video)
    height, width = video.size
    size = max(10, width // 42)
    texts = [
        Text(p.label, i * (width + gap_px) + size * 0.7, height - size * 0.7, size, (255, 255, 255), "ls", True)
        for i, p in enumerate(shown)
    ]
    gap = np.zeros((height, gap_px, 3), np.uint8)
    frames = []
    for f in range(video.frame_count):
        cells = [cell for p in shown for cell in (draw(video, f, p.name, range_m), gap)][:-1]
        frames.append(draw_texts(np.concatenate(cells, 1), texts, halo=True))
    return frames


def write_movie(path: str | Path, video: Video, panels: Sequence[str] = PANELS) -> Path:
    """mp4 of one video: at the frames' own rate, or, for a clip of under 2 s, looped to and fro for some seconds."""
    frames = movie_frames(video, panels)
    fps = frame_rate(video)
    if len(frames) / fps >= 2:
        return write_mp4(path, frames, fps)
    slow = min(fps, max(SHORT_CLIP_FPS, len(frames) / 2))
    return write_mp4(path, ping_pong(frames, round(SHORT_CLIP_S * slow)), slow)


def frame_rate(video: Video) -> float:
    """Frames per second from the timestamps; 15 where there is only one frame or no clock."""
    times = np.asarray(video.frames["timestamp_s"], np.float64)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    return 1 / step if step > 0 else 15.0


def ping_pong(frames: Sequence[Any], least: int) -> list[Any]:
    """0 1 2 1 0 1 2 … in whole periods until there are ``least`` or more; a single frame is repeated."""
    period = [*frames, *frames[-2:0:-1]]
    return period * max(1, -(-least // len(period)))


def write_mp4(path: str | Path, frames_rgb: Iterable[Rgb], fps: float) -> Path:
    """Encode uint8 RGB frames (H, W, 3) of one size; H.264 where this PyAV has it, else MPEG-4 part 2; 4:2:0.

    Odd sizes lose their last row or column (4:2:0 needs even ones). Creates the folder; the file appears only when
    complete. RecordError without frames. Returns the path.
    """
    import av

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    stream = None
    with av.open(str(partial), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        for frame in frames_rgb:
            even = np.ascontiguousarray(frame[: frame.shape[0] & ~1, : frame.shape[1] & ~1])
            if stream is None:
                stream = _add_stream(container, even, fps)
            for packet in stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")):
                container.mux(packet)
        if stream is not None:
            container.mux(stream.encode())
    if stream is None:
        partial.unlink(missing_ok=True)
        raise RecordError(f"movie {path.name}: no frames given; give at least one")
    partial.replace(path)
    return path


def _add_stream(container: Any, frame: Rgb, fps: float) -> Any:
    from av.codec.context import Flags

    for name, options in ENCODERS:
        if _has_encoder(name):
            stream = container.add_stream(name, rate=Fraction(fps).limit_denominator(1001), options=options)
            stream.width, stream.height, stream.pix_fmt = frame.shape[1], frame.shape[0], "yuv420p"
            stream.codec_context.flags |= Flags.bitexact
            return stream
    raise RecordError("movie: this PyAV has no H.264 or MPEG-4 encoder; reinstall it: pip install --force-reinstall av")


def _has_encoder(name: str) -> bool:
    from av.codec.codec import Codec, UnknownCodecError

    try:
        Codec(name, "w")
    except UnknownCodecError:
        return False
    return True
