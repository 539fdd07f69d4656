"""Blender's ids, depth and normals against an independent Embree ray cast of the same scene."""

from collections.abc import Iterator

import numpy as np

from dataengine.raycast.views import render_labels
from dataengine.record.modalities import DEPTH_QUANTUM_M
from dataengine.record.video import Video
from dataengine.scene.spec import SceneSpec
from dataengine.scene.world import RayWorld

MAX_ID_MISMATCH = 5e-4
"""Share of pixels whose id may differ: pixel centres that fall within float rounding of an edge."""

DEPTH_P99_M, DEPTH_BAD_M, MAX_DEPTH_BAD = 5e-4, 5e-3, 1e-3
"""Where the ids agree: 99 % within 0.5 mm + quantum, at most 0.1 % beyond 5 mm (grazing surfaces)."""

NORMAL_MEDIAN_DEG = 8.0
"""Shading normals differ from the geometric ones on smooth-shaded meshes, but not at large."""


def check_frame(video: Video, world: RayWorld, scene: SceneSpec, f: int) -> Iterator[tuple[str, list[str]]]:
    """(check name, messages) for one frame. Intrinsics and poses are taken from the record, not from the scene."""
    images, row = video.images, video.frames[f]
    if not {"depth_z", "mask_link", "mask_object"} <= images.keys():
        return
    height, width = video.size
    view = render_labels(world.posed(f), row["K"], row["T_world_cam"], width, height)
    link = np.append(world.link_of_mesh + 1, 0)[view.mesh_index]
    instance = np.append(world.instance_of_mesh, 0)[view.mesh_index]
    same = (link == images["mask_link"][f]) & (instance == images["mask_object"][f])
    wrong = float(1 - same.mean())
    yield "ids against rays", [] if wrong <= MAX_ID_MISMATCH else [f"{wrong:.3%} of the ids differ (allowed {MAX_ID_MISMATCH:.3%})"]
    surface = same & (view.depth_z_m > 0)
    if not surface.any():
        return
    error = np.abs(images["depth_z"][f][surface] - view.depth_z_m[surface])
    p99, bad = float(np.percentile(error, 99)), float((error > DEPTH_BAD_M).mean())
    fine = p99 <= DEPTH_P99_M + DEPTH_QUANTUM_M and bad <= MAX_DEPTH_BAD
    yield "depth against rays", [] if fine else [f"99 % within {p99 * 1e3:.2f} mm, {bad:.3%} beyond 5 mm"]
    if "normals" in images:
        stored = images["normals"][f][surface].astype(np.float32) / 127
        length = np.linalg.norm(stored, axis=-1)
        cosine = (stored * view.normal_cam[surface]).sum(-1) / np.maximum(length, 1e-6)
        angle = float(np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))))
        unit = float(((length > 0.97) & (length < 1.03)).mean())
        messages = [] if angle <= NORMAL_MEDIAN_DEG else [f"median angle to the ray-cast normals {angle:.1f}°"]
        yield "normals against rays", messages + ([] if unit > 0.999 else [f"only {unit:.2%} of the normals have unit length"])
