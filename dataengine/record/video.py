"""A video in memory: the one record type for rendered and for annotated real data."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dataengine.errors import RecordError
from dataengine.record.modalities import concrete_shape, modality


@dataclass(frozen=True)
class Names:
    """What the J, L, P, N axes of the frame table mean, in order."""

    joints: tuple[str, ...]
    links: tuple[str, ...]
    keypoints: tuple[str, ...]
    keypoint_links: tuple[int, ...]
    keypoint_offsets_m: tuple[tuple[float, float, float], ...]
    objects: tuple[str, ...]


@dataclass(frozen=True)
class Video:
    """F frames of one scene.

    `images` holds (F, …) arrays by modality name (any subset of the table), `frames` the (F,) structured rows of
    `frame_table.frame_dtype`. `scene` is the JSON form of the SceneSpec (rendered) or of the capture (real),
    `provenance` versions and asset hashes. No wall-clock times: equal inputs give equal bytes.
    """

    source: Literal["rendered", "real"]
    names: Names
    images: dict[str, np.ndarray]
    frames: np.ndarray
    scene: dict[str, Any]
    provenance: dict[str, Any]
    rejection: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def frame_count(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images; (0, 0) when there are none."""
        for a in self.images.values():
            return int(a.shape[1]), int(a.shape[2])
        return 0, 0

    def check(self) -> "Video":
        """Raise RecordError unless every array fits the table of modalities; returns self."""
        h, w = self.size
        for name, array in self.images.items():
            m = modality(name)
            want = (self.frame_count, *concrete_shape(m, h, w))
            if array.dtype != np.dtype(m.dtype) or array.shape != want:
                raise RecordError(f"{name}: got {array.dtype}{array.shape}, the table says {m.dtype}{want}")
        return self
