"""From noisy samples to clean frames: gather samples over a clip, clean the auxiliaries, denoise.

In a clip with a still camera most pixels show the same surface in every frame, under the same light. Their samples are
independent between frames, so three frames of 4 samples hold up to 12 samples of such a pixel. A neighbouring frame counts in a
pixel only if it shows the same thing at the same depth there, and as far as its light agrees within what noise explains:
moving shadows and reflections keep to their own frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dataengine.render.blender.capture import Passes
from dataengine.render.blender.denoise import Denoiser, Image, Quality

COLOR, ALBEDO, NORMAL = "Combined", "Denoising Albedo", "Denoising Normal"
NOISY_PASSES = (COLOR, ALBEDO, NORMAL, "Depth", "IndexOB")
REACH = 2
"""Frames before and after that lend samples."""
WINDOW_PX = 15
"""Side of the square over which the light of two frames is compared."""
CHANGE = 0.005
"""Relative change of light that halves the weight of a neighbouring frame where noise is negligible."""
NOISE = 1.0
"""Squared standard errors that do so where noise is all there is."""
BRIGHT = 4.0
"""Light above this is clipped for the comparison, where single bright samples would hide everything else."""
SAME_DEPTH = 1e-5
"""Relative tolerance for the depth of one surface in two frames."""
MARGIN_PX = 32
"""Surroundings that the denoiser sees around a part of an image."""


def denoise_clip(frames: Sequence[Passes], still_camera: bool, quality: Quality, prefilter: str, denoiser: Denoiser) -> list[Image]:
    """Clean scene-linear images (H,W,3) of a clip's frames, each with `NOISY_PASSES`.

    `prefilter`, as in Cycles: NONE trusts albedo and normals as they are, FAST takes them as noisy and denoises all together,
    ACCURATE denoises them first and then trusts them, which keeps textures best. Below quality HIGH, ACCURATE smooths the
    albedo only: the normals gain 0.1 dB for the price of half a frame's denoising.
    """
    gathered = [gather(frames, f) if still_camera else own(frames[f]) for f in range(len(frames))]
    albedos, normals = [g[1] for g in gathered], [g[2] for g in gathered]
    if prefilter == "ACCURATE":
        moved = [1.0 - same_surface(frames[0], frame) if still_camera else None for frame in frames]
        albedos = smooth_clip("albedo", albedos, moved, quality, denoiser)
        if quality == "HIGH":
            normals = smooth_clip("normal", normals, moved, quality, denoiser)
    trusted = prefilter != "FAST"
    return [denoiser.color(g[0], a, n, quality, trusted) for g, a, n in zip(gathered, albedos, normals, strict=True)]


def smooth_clip(
    name: Literal["albedo", "normal"],
    images: Sequence[Image],
    moved: Sequence[NDArray[np.float32] | None],
    quality: Quality,
    denoiser: Denoiser,
) -> list[Image]:
    """Denoise an auxiliary image of every frame; where nothing moved since the first frame, its result serves again.

    `moved`: per frame, non-zero where it shows something else than the first; None = everywhere.
    """
    first = denoiser.auxiliary(name, images[0], quality)
    out = [first]
    for image, mask in zip(images[1:], moved[1:], strict=True):
        window = (slice(None), slice(None)) if mask is None else window_around(mask)
        if window is None:
            out.append(first)
            continue
        mixed = first.copy()
        mixed[window] = denoiser.auxiliary(name, image[window], quality)
        if mask is not None:  # the rim of the window lacks context
            mixed = np.where(cv2.dilate(mask, np.ones((9, 9), np.uint8))[..., None] > 0, mixed, first)
        out.append(mixed)
    return out


def window_around(mask: NDArray[np.float32]) -> tuple[slice, slice] | None:
    """Rows and columns of the bounding box of non-zero pixels with a margin; None if there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return None
    top, left = max(0, rows[0] - MARGIN_PX), max(0, columns[0] - MARGIN_PX)
    return slice(top, rows[-1] + MARGIN_PX + 1), slice(left, columns[-1] + MARGIN_PX + 1)


def own(frame: Passes) -> tuple[Image, Image, Image]:
    """Colour, albedo and normals of a frame alone."""
    return frame[COLOR][..., :3], frame[ALBEDO], frame[NORMAL]


def gather(frames: Sequence[Passes], f: int) -> tuple[Image, Image, Image]:
    """Colour, albedo and normals of frame f, averaged with the neighbours' where they show the same."""
    totals = [image.copy() for image in own(frames[f])]
    weights = np.ones(totals[0].shape[:2], np.float32)
    for g in range(max(0, f - REACH), min(len(frames), f + REACH + 1)):
        if g == f:
            continue
        weight = same_surface(frames[f], frames[g]) * light_agreement(frames[f][COLOR], frames[g][COLOR])
        weights += weight
        for total, image in zip(totals, own(frames[g]), strict=True):
            total += weight[..., None] * image
    color, albedo, normal = (total / weights[..., None] for total in totals)
    return color, albedo, normal


def same_surface(a: Passes, b: Passes) -> NDArray[np.float32]:
    """1 where a pixel and its eight neighbours show the same thing at the same depth in both frames, else 0."""
    depth_a, depth_b = a["Depth"][..., 0], b["Depth"][..., 0]
    same = (a["IndexOB"][..., 0] == b["IndexOB"][..., 0]) & (np.abs(depth_a - depth_b) <= SAME_DEPTH * depth_a)
    return np.asarray(cv2.erode(same.astype(np.uint8), np.ones((3, 3), np.uint8)), np.float32)


def light_agreement(a: Image, b: Image) -> NDArray[np.float32]:
    """Weight 0…1 (H,W): 1 where the local mean light of two noisy images (H,W,≥3) is equal within noise.

    The mean of the difference over a window is set against its standard error (texture cancels in a difference, noise does
    not) and a small relative change.
    """
    level_a, level_b = (np.minimum(image[..., :3].mean(-1), np.float32(BRIGHT)) for image in (a, b))
    difference = level_a - level_b
    change, level = _window_mean(difference), _window_mean(np.minimum(level_a, level_b))
    error2 = np.maximum(_window_mean(difference * difference) - change * change, np.float32(0)) * np.float32(1.0 / WINDOW_PX**2)
    tolerance = np.float32(NOISE) * error2 + np.float32(CHANGE**2) * level * level + np.float32(1e-10)
    strangeness = change * change / tolerance
    return np.float32(1.0) / (np.float32(1.0) + strangeness * strangeness)


def _window_mean(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.blur(image, (WINDOW_PX, WINDOW_PX)), np.float32)
