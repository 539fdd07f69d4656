"""A solved capture as a labelled video of the store: the same record as rendered data, with covariances and verdicts.

Only frames with a camera pose become frames of the video; which ones were left out, and why, stands in its scene.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annotators.anchor_posterior import output_keypoints
from annotators.object_view import ObjectView, object_view, object_visibility
from annotators.objects import PosedObject
from annotators.robot_view import RobotView, T_cam_base_of, View
from annotators.types import Capture, Solution
from dataengine import __version__
from dataengine.geometry import camera
from dataengine.record.frame_table import KEYPOINT_OCCLUDED, KEYPOINT_OUTSIDE, KEYPOINT_VISIBLE, frame_dtype
from dataengine.record.modalities import DEPTH_QUANTUM_M
from dataengine.record.video import Names, Video
from dataengine.robot.catalogue import load_robot
from dataengine.store.dataset import Dataset, open_or_create

Array = np.ndarray
Progress = Callable[[int], None]

OCCLUDED_M = 0.04
"""A measured surface this much in front of the posed robot hides it; sensors and poses are better than that."""
MASK_MARGIN_PX = 6
"""Given masks decide only farther than this from their own outline."""


def make_video(capture: Capture, solution: Solution, progress: Progress | None = None, objects: Sequence[PosedObject] = ()) -> Video:
    """Labels of all posed frames. `progress(i)` is called after each frame.

    mask_link, mask_object: what the image shows of each link and object; where another posed thing, measured depth or (links only) a
    given mask says that something stands before it, they are 0. depth_z: depth of the posed robot and objects, 0 elsewhere. depth_sim:
    what the camera measured.
    """
    model = load_robot(capture.robot)
    robot, points = RobotView(model), output_keypoints(model)
    posed = np.flatnonzero(np.isfinite(solution.T_world_cam).all((1, 2)) & np.isfinite(solution.joints_rad).all(1))
    rows = np.zeros(len(posed), frame_dtype(model.dof, len(model.links), len(points), len(objects), with_covariance=True))
    stacks: dict[str, list[Array]] = {}
    for row, f in zip(rows, posed.tolist(), strict=True):
        T_cam_base = T_cam_base_of(solution.T_world_cam[f], solution.T_world_base[f])
        T_cam_link = robot.poses(solution.joints_rad[f], T_cam_base)
        things = object_view(capture, solution.T_world_cam[f], f, objects)
        images, shown, whole = _images(capture, f, robot, T_cam_link, things)
        for name, image in images.items():
            stacks.setdefault(name, []).append(image)
        _fill(row, capture, solution, f, T_cam_base, T_cam_link)
        share = robot.visibility(points, T_cam_link, shown > 0, capture.K)
        _place_keypoints(row, points.positions(T_cam_link), share, capture)
        alone = whole.sum((1, 2))
        seen = np.bincount(shown.ravel(), minlength=len(model.links) + 1)[1 : len(model.links) + 1]
        row["link_visibility"] = np.where(alone > 0, np.minimum(seen / np.maximum(alone, 1), 1), 0)
        row["T_cam_object"] = things.T_cam_object
        row["object_visibility"] = object_visibility(images["mask_object"], things)
        if progress is not None:
            progress(f)
    rows["joint_velocity"] = _velocity(rows["joint_position"], rows["timestamp_s"])
    names = Names(
        tuple(solution.joint_names), model.links, points.names, tuple(points.link_index.tolist()),
        tuple((float(x), float(y), float(z)) for x, y, z in points.offset_m),
        tuple(thing.name for thing in objects),
    )  # fmt: skip
    rejection = None if rows["accepted"].any() else "no frame was accepted: " + next((r for r in solution.reasons if r), "no camera pose")
    images = {name: np.stack(stack) for name, stack in stacks.items()}
    scene = describe(capture, solution, posed, model.urdf_sha, objects)
    return Video("real", names, images, rows, scene, {"dataengine": __version__}, rejection).check()


def _images(capture: Capture, f: int, robot: RobotView, T_cam_link: Array, things: ObjectView) -> tuple[dict[str, Array], Array, Array]:
    """(images by modality, visible link ids (H,W), silhouettes of the links (L,H,W)) of one frame."""
    view = robot.view(capture.K, capture.size, T_cam_link)
    whole = robot.amodal_links(capture.K, capture.size, T_cam_link)
    measured = capture.depth_z_m(f) if capture.depth_z_m is not None else None
    shown = visible_links(view, measured, capture.mask(f) if capture.mask is not None else None)
    before = (things.ids > 0) & ((view.depth_z_m == 0) | (things.depth_z_m < view.depth_z_m))
    shown = np.where(before, 0, shown).astype(np.uint8)
    hidden = ~before if measured is None else ~before | ((measured > 0) & (things.depth_z_m - measured > OCCLUDED_M))
    bits = np.uint32(1) << np.arange(len(things.whole), dtype=np.uint32)
    images = {
        "rgb": np.ascontiguousarray(capture.rgb(f)),
        "depth_z": _quantised(np.where(before, things.depth_z_m, view.depth_z_m)),
        "mask_link": shown,
        "mask_object": np.where(hidden, 0, things.ids).astype(np.uint8),
        "amodal_robot": whole.any(0).astype(np.uint8),
        "amodal_objects": (things.whole * bits[:, None, None]).sum(axis=0).astype(np.uint32),
    }
    if measured is not None:
        images["depth_sim"] = _quantised(measured)
    if capture.infrared is not None:
        images["ir_left"], images["ir_right"] = capture.infrared(f)
    return images, shown, whole


def visible_links(view: View, measured_z_m: Array | None, mask: Array | None) -> Array:
    """(H,W) uint8: link index + 1 where the image shows the posed robot, 0 where something measurably stands before it."""
    shown = view.link_id.copy()
    if measured_z_m is not None:
        shown[(measured_z_m > 0) & (view.depth_z_m - measured_z_m > OCCLUDED_M)] = 0
    if mask is not None:
        import cv2

        grown = cv2.dilate(mask.astype(np.uint8), np.ones((2 * MASK_MARGIN_PX + 1,) * 2, np.uint8))
        shown[grown == 0] = 0
    return shown


def _quantised(depth_z_m: Array) -> Array:
    good = np.isfinite(depth_z_m) & (depth_z_m > 0)
    return (np.rint(np.where(good, depth_z_m, 0.0) / DEPTH_QUANTUM_M) * DEPTH_QUANTUM_M).astype(np.float32)


def _fill(row: Any, capture: Capture, solution: Solution, f: int, T_cam_base: Array, T_cam_link: Array) -> None:
    row["timestamp_s"], row["K"], row["T_world_cam"] = capture.times_s[f] - capture.times_s[0], capture.K, solution.T_world_cam[f]
    row["T_cam_base"], row["T_cam_link"] = T_cam_base, T_cam_link
    row["joint_position"] = solution.joints_rad[f]
    row["accepted"] = bool(solution.accepted[f])
    row["base_covariance"] = base_in_camera(solution.base_covariance, solution.camera_covariance[f], T_cam_base)
    row["keypoint_covariance"] = solution.keypoint_covariance[f]


def base_in_camera(base: Array, cam: Array, T_cam_base: Array) -> Array:
    """Covariance (6,6) of T_cam_base's translation and rotation vector in camera axes, m² and rad².

    With T_world_base·exp(β) and T_world_cam·exp(γ), T_cam_base becomes exp(Ad β − γ)·T_cam_base to first order (Barfoot, State
    Estimation for Robotics, section 7); the translation then moves by ρ + φ × t. Base and camera are taken as independent.
    """
    R, t = T_cam_base[:3, :3], T_cam_base[:3, 3]
    adjoint = np.zeros((6, 6))
    adjoint[:3, :3] = adjoint[3:, 3:] = R
    adjoint[:3, 3:] = _cross(t) @ R
    twist = adjoint @ base @ adjoint.T + cam
    moved = np.eye(6)
    moved[:3, 3:] = -_cross(t)
    return moved @ twist @ moved.T


def _cross(v: Array) -> Array:
    x, y, z = v
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], float)


def _place_keypoints(row: Any, points_cam_m: Array, share: Array, capture: Capture) -> None:
    width, height = capture.size
    px = camera.project(capture.K, points_cam_m)
    inside = camera.in_image(px, width, height) & (points_cam_m[:, 2] > 0)
    row["keypoints_cam_m"], row["keypoints_px"] = points_cam_m, px
    row["keypoint_visibility"] = np.where(inside, share, 0)
    row["keypoint_state"] = np.where(inside, np.where(share >= 0.5, KEYPOINT_VISIBLE, KEYPOINT_OCCLUDED), KEYPOINT_OUTSIDE)


def _velocity(q: Array, times_s: Array) -> Array:
    """Central differences (F,J); zero for one frame."""
    return np.gradient(q, times_s, axis=0) if len(q) > 1 else np.zeros_like(q)


def describe(
    capture: Capture, solution: Solution, posed: Sequence[int] | Array, urdf_sha256: str = "", objects: Sequence[PosedObject] = ()
) -> dict[str, Any]:
    """The capture and all that was found about it, as plain JSON: the `scene` of a real video."""
    kept = {int(f) for f in posed}
    return {
        "dataset": capture.name,
        "capture": capture.name,
        "files": [capture.frames[f] for f in sorted(kept)],
        "robot": {"name": capture.robot if "/" not in capture.robot else Path(capture.robot).stem, "urdf_sha256": urdf_sha256},
        "objects": [
            {
                "instance_id": k + 1,
                "name": thing.name,
                "category": thing.name,
                "size_m": np.ptp(thing.mesh.vertices_m, axis=0).tolist(),
                "segments": [{"start": s, "covariance": thing.solution.covariance[s].tolist()} for s in thing.solution.starts],
            }
            for k, thing in enumerate(objects)
        ],
        "annotation": {
            "left_out": {capture.frames[f]: solution.reasons[f] for f in range(len(capture.frames)) if f not in kept},
            "rejected": {capture.frames[f]: solution.reasons[f] for f in sorted(kept) if not solution.accepted[f]},
            "flags": [{"kind": f.kind, "text": f.text, "frames": list(f.frames)} for f in solution.flags],
            "metres_per_unit": _plain(solution.metres_per_unit),
            "scales": [{"source": s.source, "metres_per_unit": s.metres_per_unit, "sigma": s.sigma} for s in solution.scales],
            "time_offset_s": _plain(solution.time_offset_s),
            "depth_scale": _plain(solution.depth_scale),
            "joint_sigma": _plain(np.sqrt(np.maximum(np.einsum("njj->nj", solution.joint_covariance[sorted(kept)]), 0))),
            "camera_covariance": _plain(solution.camera_covariance[sorted(kept)]),
        },
    }


def _plain(value: Any) -> Any:
    """Numbers as JSON has them: nan becomes None."""
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()]
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if value is None or not np.isfinite(value) else float(value)


def write_dataset(folder: Path, video: Video, key: str, split: str = "test") -> Dataset:
    """Commit the video as the only one of a new dataset in `folder`. `key` names the inputs it was made from.

    The same key again changes nothing; another key replaces the dataset, which is a product. StoreError as the store says.
    """
    identity = {"name": str(video.scene["dataset"]), "annotated": {"key": key}, "codecs": "portable"}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    head = folder / "dataset.json"
    if head.is_file() and json.loads(head.read_text()).get("spec_digest") != digest:
        shutil.rmtree(folder)
    dataset = open_or_create(folder, identity, digest, identity["name"], planned=1)
    dataset.clean_staging()
    if not dataset.videos():
        dataset.add(0, video, split)
    dataset.write_manifest("annotate")
    return dataset
