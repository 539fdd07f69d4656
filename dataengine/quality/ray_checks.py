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

DEPTH_P99_M, DEPTH_P99_RELATIVE, MAX_DEPTH_BAD = 3e-4, 1e-4, 1e-3
"""Where the ids agree: 99 % within 0.3 mm + 0.01 % of the depth + quantum, at most 0.1 % beyond ten times that (grazing
surfaces). Relative, since both renderers work in float32: a floor seen at 17 m differs by up to 1 mm (measured)."""

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
    depth = view.depth_z_m[surface]
    error = np.abs(images["depth_z"][f][surface] - depth)
    excess = error / (DEPTH_P99_M + DEPTH_QUANTUM_M + DEPTH_P99_RELATIVE * depth)
    p99, bad = float(np.percentile(excess, 99)), float((excess > 10).mean())
    worst = f"99 % within {p99:.2f} times the tolerance (median error {np.median(error) * 1e3:.2f} mm), {bad:.3%} beyond ten times"
    yield "depth against rays", [] if p99 <= 1 and bad <= MAX_DEPTH_BAD else [worst]
    if "normals" in images:
        stored = images["normals"][f][surface].astype(np.float32) / 127
        length = np.linalg.norm(stored, axis=-1)
        cosine = (stored * view.normal_cam[surface]).sum(-1) / np.maximum(length, 1e-6)
        angle = float(np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))))
        unit = float(((length > 0.97) & (length < 1.03)).mean())
        messages = [] if angle <= NORMAL_MEDIAN_DEG else [f"median angle to the ray-cast normals {angle:.1f}°"]
        yield "normals against rays", messages + ([] if unit > 0.999 else [f"only {unit:.2%} of the normals have unit length"])
