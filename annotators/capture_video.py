"""Frames of a video file by index, decoded when asked for (PyAV)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from annotators.capture_spec import CaptureError

Array = np.ndarray

KEPT = 8
"""Decoded frames that are kept: viewers and trackers go back and forth by a few."""


class VideoFile:
    """Random access to the frames of one file; going forward decodes each frame once. Safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Array] = OrderedDict()
        self._decoding: Iterator[Any] = iter(())
        self._next = -1
        with self._open() as container:
            stream = container.streams.video[0]
            stamps = [p.pts for p in container.demux(stream) if p.pts is not None and p.size]
            unit_s = float(stream.time_base or 1)
            self.size = (int(stream.codec_context.width), int(stream.codec_context.height))
        if not stamps:
            raise CaptureError(f"{path} holds no video frames; it may be truncated")
        self._stamps = sorted(stamps)
        self._index = {stamp: k for k, stamp in enumerate(self._stamps)}
        self.times_s = (np.array(self._stamps, float) - self._stamps[0]) * unit_s

    def __len__(self) -> int:
        return len(self._stamps)

    def rgb(self, index: int) -> Array:
        """(H,W,3) uint8. CaptureError for a frame that cannot be decoded."""
        with self._lock:
            if index not in self._kept:
                self._decode(index)
            self._kept.move_to_end(index)
            return self._kept[index]

    def _decode(self, index: int) -> None:
        if self._next < 0 or not self._next <= index < self._next + KEPT:
            self._decoding = self._from(index)
        for frame in self._decoding:
            k = self._index.get(frame.pts, -1)
            if k < 0 or k < index - KEPT + 1:
                continue
            self._kept[k] = frame.to_ndarray(format="rgb24")
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            self._next = k + 1
            if k >= index:
                break
        if index not in self._kept:
            self._next = -1
            raise CaptureError(f"{self.path}: frame {index} cannot be decoded; the file is damaged there")

    def _from(self, index: int) -> Iterator[Any]:
        from av.error import FFmpegError

        with self._open() as container:
            stream = container.streams.video[0]
            container.seek(self._stamps[index], stream=stream, backward=True)
            try:
                yield from container.decode(stream)
            except FFmpegError:
                return

    def _open(self) -> Any:
        import av
        from av.error import FFmpegError

        try:
            container = av.open(str(self.path))
        except (FFmpegError, OSError) as error:
            raise CaptureError(f"{self.path} is not a video that can be read: {getattr(error, 'strerror', error)}") from None
        if not container.streams.video:
            raise CaptureError(f"{self.path} holds no video stream")
        return container
