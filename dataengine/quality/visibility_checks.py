"""What is seen of each keypoint, link and object, against depth, masks and the projected meshes."""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from dataengine.geometry import camera, se3
from dataengine.record.frame_table import KEYPOINT_OCCLUDED, KEYPOINT_VISIBLE
from dataengine.record.video import Video
from dataengine.robot.model import RobotModel
from dataengine.scene.world import RayWorld

SURE = 0.9
"""Keypoints that are seen to at least this share, or hidden to it, are checked; what lies between depends on single rays."""

HIDDEN_M, SEEN_M = 0.012, 0.008
"""A surface this far before a keypoint surely hides it; one no farther than SEEN_M surely does not."""

DEEP_M, SHALLOW_M = 0.125, 0.115
"""The same for the surface of a link that carries the keypoint, inside of which joint origins lie."""

MIN_VERTEX_SHARE = 0.9
"""Of a mesh's vertices in the image, so many must project into its amodal mask (within a pixel) …"""

MIN_OUTLINE_PX = 100
"""… where their outline has at least this many pixels: parts thinner than a pixel slip between pixel centres."""

_NEIGHBOURS = np.ones((3, 3), np.uint8)


def carriers(model: RobotModel, meshed: set[int], link: int) -> set[int]:
    """Links whose surface may lie before a keypoint of `link` without hiding it: it and the nearest with a mesh up and down the chain."""
    out = {link}
    above = [model.link_index(joint.parent) for joint in reversed(model.chain(model.links[link]))]
    out |= set([i for i in above if i in meshed][:1])
    for other in meshed:
        way = [model.link_index(joint.parent) for joint in model.chain(model.links[other])]
        if link in way and not any(i in meshed for i in way[way.index(link) + 1 :]):
            out.add(other)
    return out


def keypoints(video: Video, f: int, model: RobotModel, meshed: set[int]) -> list[str]:
    """A keypoint called visible is not hidden in all pixels about it; one called occluded has something before it."""
    images, row = video.images, video.frames[f]
    if not {"depth_z", "mask_link"} <= images.keys():
        return []
    out = []
    for k, name in enumerate(video.names.keypoints):
        state, share, point = row["keypoint_state"][k], row["keypoint_visibility"][k], row["keypoints_cam_m"][k]
        inside = camera.in_image(row["keypoints_px"][k], video.size[1], video.size[0])
        if 1 - SURE < share < SURE or state not in (KEYPOINT_VISIBLE, KEYPOINT_OCCLUDED) or not inside:
            continue
        u, v = np.rint(row["keypoints_px"][k]).astype(int)
        about = np.s_[f, max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2]
        depth_m, link = images["depth_z"][about], images["mask_link"][about]
        before_m = np.where(depth_m > 0, (1 - depth_m / point[2]) * np.linalg.norm(point), 0.0)
        own = np.isin(link, [i + 1 for i in carriers(model, meshed, video.names.keypoint_links[k])])
        if state == KEYPOINT_VISIBLE and (before_m > np.where(own, DEEP_M, HIDDEN_M)).all():
            out.append(f"keypoint {name} is called visible, but something lies {before_m.min() * 1e2:.1f} cm before it")
        if state == KEYPOINT_OCCLUDED and (before_m < np.where(own, SHALLOW_M, SEEN_M)).all():
            out.append(f"keypoint {name} is called occluded, but nothing hides it")
    return out


def shares(video: Video, f: int) -> list[str]:
    """Visible shares against visible and amodal masks."""
    images, row, out = video.images, video.frames[f], []
    if "mask_link" in images:
        seen = np.bincount(images["mask_link"][f].ravel(), minlength=256)[1 : len(video.names.links) + 1]
        share = row["link_visibility"]
        wrong = ((seen > 0) != (share > 0)) | (share > 1) | ~np.isfinite(share)
        if "amodal_robot" in images:  # seen / share is the link's amodal size, which is a part of the robot's
            wrong |= np.where(share > 0, seen / np.maximum(share, 1e-9), 0) > int(images["amodal_robot"][f].sum()) * 1.01 + 5
        out += [f"link {video.names.links[i]}: {seen[i]} pixels contradict visibility {share[i]:.3f}" for i in np.flatnonzero(wrong)]
    if {"mask_object", "amodal_objects"} <= images.keys():
        for k, name in enumerate(video.names.objects):
            seen_px = int((images["mask_object"][f] == k + 1).sum())
            alone_px = int(((images["amodal_objects"][f] >> np.uint32(k)) & 1).sum())
            share = min(1.0, seen_px / alone_px) if alone_px else 0.0
            if not abs(row["object_visibility"][k] - share) < 1e-6:
                out.append(f"{name}: visibility {row['object_visibility'][k]:.3f}, but {seen_px} of {alone_px} pixels are visible")
    return out


def silhouettes(video: Video, f: int, world: RayWorld) -> Iterator[tuple[str, list[str]]]:
    """Amodal masks lie within the outlines of the projected meshes and hold the projected vertices."""
    images = video.images
    if "amodal_robot" in images:
        parts = [int(i) for i in np.flatnonzero(world.link_of_mesh >= 0)]
        yield "amodal robot", _fits("robot", images["amodal_robot"][f] > 0, parts, video, f, world)
    if "amodal_objects" in images:
        messages = []
        for k, name in enumerate(video.names.objects):
            mask = (images["amodal_objects"][f] >> np.uint32(k)) & 1 > 0
            messages += _fits(name, mask, np.flatnonzero(world.instance_of_mesh == k + 1).tolist(), video, f, world)
        yield "amodal objects", messages


def _fits(name: str, mask: NDArray[np.bool_], meshes: list[int], video: Video, f: int, world: RayWorld) -> list[str]:
    row, (height, width) = video.frames[f], video.size
    T_cam_world = se3.inverse(row["T_world_cam"])
    outline, grown = np.zeros(mask.shape, np.uint8), cv2.dilate(mask.astype(np.uint8), _NEIGHBOURS) > 0
    held = total = 0
    for i in meshes:
        points = se3.transform(T_cam_world @ world.T_world_mesh[f][i], world.meshes[i].vertices_m)
        if points[:, 2].min() < 0.01:
            return []  # reaches behind the camera: no outline
        px = camera.project(row["K"], points)
        hull = cv2.convexHull(np.clip(px, -20000, 20000).astype(np.float32))
        cv2.fillPoly(outline, [np.rint(hull).astype(np.int32)], (1,))
        inside = np.rint(px[camera.in_image(px, width, height)]).astype(int)
        held, total = held + int(grown[inside[:, 1], inside[:, 0]].sum()), total + len(inside)
    stray = int((mask & (cv2.dilate(outline, _NEIGHBOURS) == 0)).sum())
    out = [f"{name}: {stray} amodal pixels outside the outline of its projected mesh"] if stray else []
    if outline.sum() >= MIN_OUTLINE_PX and held < MIN_VERTEX_SHARE * total:
        out.append(f"{name}: only {held / total:.0%} of its vertices project into its amodal mask")
    return out
