"""From noisy samples to clean frames: gather samples over a clip, clean the auxiliaries, denoise.

In a clip with a still camera most pixels show the same surface in every frame, under the same light. Their samples are
independent between frames, so three frames of 4 samples hold up to 12 samples of such a pixel. A neighbouring frame counts in a
pixel only if it shows the same thing at the same depth there, and as far as its light agrees within what noise explains:
moving shadows and reflections keep to their own frame.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def denoise_clip(frames: Sequence[Passes], still_camera: bool, quality: Quality, prefilter: str, denoiser: Denoiser) -> list[Image]:
    """Clean scene-linear images (H,W,3) of a clip's frames, each with `NOISY_PASSES`."""
    gathered = [gather(frames, f) if still_camera else own(frames[f]) for f in range(len(frames))]
    return [denoise_frame(*images, quality, prefilter, denoiser) for images in gathered]


def denoise_frame(color: Image, albedo: Image, normal: Image, quality: Quality, prefilter: str, denoiser: Denoiser) -> Image:
    """One image. `prefilter`, as in Cycles: NONE trusts albedo and normals as they are, FAST takes them as noisy and denoises all
    together, ACCURATE denoises them first and then trusts them, which keeps textures best.

    Below quality HIGH, ACCURATE smooths the albedo only: the normals gain 0.1 dB for the price of half a frame's denoising.
    """
    if prefilter == "ACCURATE":
        albedo = denoiser.auxiliary("albedo", albedo, quality)
        if quality == "HIGH":
            normal = denoiser.auxiliary("normal", normal, quality)
    return denoiser.color(color, albedo, normal, quality, clean_auxiliaries=prefilter != "FAST")


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
