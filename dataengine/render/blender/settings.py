"""Cycles settings: what never changes, what a video chooses, and the seed of each frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from dataengine.render.blender.adapter import rendering
from dataengine.scene.spec import SceneSpec

LABEL_PASSES = ("Depth", "IndexOB", "Normal")
COLOR_PASSES = ("Combined", "Denoising Albedo", "Denoising Normal")

GLASS_BOUNCES = 8
"""Fewer leave glass black: light crosses four surfaces of a hollow thing, twice with a background behind it."""


def apply_base_settings(scene: Any) -> None:
    """Settings that hold for every video."""
    scene.render.resolution_percentage = 100
    scene.render.use_persistent_data = True
    scene.render.use_compositing = False
    scene.render.use_sequencer = False
    scene.render.motion_blur_position = "CENTER"
    scene.render.motion_blur_shutter = 2.0  # Blender frames 0 to 2 are one exposure, see meshes.set_motion
    scene.cycles.use_adaptive_sampling = False  # does nothing below 32 samples
    scene.cycles.pixel_filter_type = "BLACKMAN_HARRIS"
    scene.cycles.filter_width = 1.5
    scene.cycles.use_denoising = False  # see clip_denoise
    scene.cycles.sample_clamp_indirect = 10.0
    # Light that metal and glass throw on the table: 7 % more time for 1.7 dB against the true image (docs/decisions.md)
    scene.cycles.caustics_reflective = True
    scene.cycles.caustics_refractive = True
    scene.cycles.blur_glossy = 1.0
    scene.frame_start = scene.frame_end = 1
    layer = scene.view_layers[0]
    layer.cycles.denoising_store_passes = True
    layer.use_pass_combined = layer.use_pass_z = layer.use_pass_normal = layer.use_pass_object_index = True


def apply_video_settings(scene: Any, spec: SceneSpec) -> None:
    """Samples and bounces of one video."""
    rendering.set_max_amount_of_samples(spec.samples_per_pixel)
    has_glass = any(obj.material.kind == "glass" for obj in spec.objects)
    bounces = max(spec.max_bounces, GLASS_BOUNCES) if has_glass else spec.max_bounces
    rendering.set_light_bounces(
        diffuse_bounces=spec.max_bounces,
        glossy_bounces=bounces,
        max_bounces=bounces,
        transmission_bounces=bounces,
        transparent_max_bounces=8,
        volume_bounces=0,
    )


def frame_seed(spec: SceneSpec, frame: int, purpose: str) -> int:
    """Cycles seed of one image: independent between datasets, videos, frames and purposes."""
    key = [spec.seed, spec.video, frame, *purpose.encode()]
    return int(np.random.SeedSequence(key).generate_state(1)[0] >> 1)
