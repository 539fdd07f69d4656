"""A dataset as a Rerun recording (.rrd): a preview for the Rerun viewer, which promises to read files of one release back only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.errors import RobotError
from dataengine.record.video import Video
from dataengine.robot.catalogue import load_robot
from dataengine.robot.meshes import LinkMesh, load_link_meshes
from dataengine.store.files import reported
from dataengine.view import colour
from dataengine.view.palette import object_colours
from dataengine.view.viewer_geometry import camera_pose, intrinsics
from dataengine.view.viewer_pixel import ROOM_ID, TABLE_ID, object_name
from dataengine.view.viewer_scene import srgb
from dataengine.view.viewer_server import ViewError, load_extra

SUFFIX = ".rrd"


def write_recording(target: Path, name: str, videos: Iterable[tuple[int, Video]]) -> Path:
    """Write videos (number, record) under `/video_<number>`: posed meshes, camera, pictures, both depths, masks, joints.

    Timelines `frame` and `time`. ViewError for a missing package or another suffix; StoreError names a folder that cannot be written.
    """
    if target.suffix != SUFFIX:
        raise ViewError(f"--rerun writes a {SUFFIX} file, not '{target.name}'; give a name that ends in {SUFFIX}")
    rr = load_extra("rerun", "rerun")
    with reported(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.open("ab").close()  # rerun itself would only warn
    stream = rr.RecordingStream(f"dataengine/{name}")
    stream.save(str(target))
    stream.log("/", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    for number, video in videos:
        _log_video(rr, stream, f"video_{number}", video)
    stream.flush()
    stream.disconnect()
    return target


def _log_video(rr: Any, stream: Any, root: str, video: Video) -> None:
    stream.log(f"{root}/ids", rr.TextDocument(_legend(video), media_type=rr.MediaType.MARKDOWN), static=True)
    for mesh in _meshes(video.scene.get("robot", {}).get("name")):
        if mesh.link in video.names.links:
            stream.log(f"{root}/robot/{mesh.link}", _mesh(rr, mesh), static=True)
    for frame in range(video.frame_count):
        stream.set_time("frame", sequence=frame)
        stream.set_time("time", duration=float(np.nan_to_num(video.frames[frame]["timestamp_s"])))
        _log_labels(rr, stream, root, video, video.frames[frame])
        _log_images(rr, stream, f"{root}/camera/image", {key: array[frame] for key, array in video.images.items()})


def _log_labels(rr: Any, stream: Any, root: str, video: Video, row: np.void) -> None:
    pose = camera_pose(row)
    height, width = video.size
    stream.log(f"{root}/camera", _transform(rr, pose))
    pinhole = rr.Pinhole(
        image_from_camera=intrinsics(row, width, height),
        resolution=(width, height),
        camera_xyz=rr.ViewCoordinates.RDF,
        image_plane_distance=0.35,
    )
    stream.log(f"{root}/camera/image", pinhole)
    for link, T_cam_link in zip(video.names.links, row["T_cam_link"], strict=True):
        if np.isfinite(T_cam_link).all():
            stream.log(f"{root}/robot/{link}", _transform(rr, pose @ T_cam_link))
    sizes = {entry.get("name"): entry.get("size_m") for entry in video.scene.get("objects", [])}
    for index, (name, T_cam_object) in enumerate(zip(video.names.objects, row["T_cam_object"], strict=True)):
        if np.isfinite(T_cam_object).all() and (size := sizes.get(name)) is not None:
            stream.log(f"{root}/objects/{index}", _transform(rr, pose @ T_cam_object))
            box = rr.Boxes3D(sizes=[size], labels=[name], colors=[object_colours()[index + 1]])
            stream.log(f"{root}/objects/{index}", box)
    known = np.isfinite(row["keypoints_cam_m"]).all(-1)
    labels = [name for name, there in zip(video.names.keypoints, known, strict=True) if there]
    stream.log(f"{root}/camera/keypoints", rr.Points3D(row["keypoints_cam_m"][known], labels=labels, radii=0.006))
    for joint, value in zip(video.names.joints, row["joint_position"], strict=True):
        stream.log(f"{root}/joints/{joint}", rr.Scalars(float(value)))


def _log_images(rr: Any, stream: Any, root: str, images: dict[str, np.ndarray]) -> None:
    """The pictures under their modality's name; masks as class ids, normals and NOCS as colours."""
    entries = {
        "rgb": lambda a: rr.Image(a).compress(jpeg_quality=95), "ir_left": rr.Image, "ir_right": rr.Image,
        "depth_z": lambda a: rr.DepthImage(a, meter=1.0), "depth_sim": lambda a: rr.DepthImage(a, meter=1.0),
        "normals": lambda a: rr.Image(colour.normals(a)), "nocs": lambda a: rr.Image(colour.nocs(a)),
    }  # fmt: skip
    for key, make in entries.items():
        if key in images:
            stream.log(f"{root}/{key}", make(images[key]))
    for key in ("mask_link", "mask_object"):
        if key in images:
            stream.log(f"{root}/{key}", rr.SegmentationImage(images[key]))


def _legend(video: Video) -> str:
    """The names behind the ids of the masks. An AnnotationContext would say it in the picture, but 0.23 makes none under numpy 1.26."""
    links = [f"| mask_link | {k} | {name} |" for k, name in enumerate(video.names.links, 1)]
    objects = [*enumerate(video.names.objects, 1), *((k, object_name(k, ())) for k in (ROOM_ID, TABLE_ID))]
    return "\n".join(["| mask | id | name |", "|---|---|---|", *links, *(f"| mask_object | {k} | {name} |" for k, name in objects)])


def _meshes(name: str | None) -> list[LinkMesh]:
    if name is None:
        return []
    try:
        return load_link_meshes(load_robot(name))
    except RobotError:  # a robot that is not installed here: its links are still posed
        return []


def _mesh(rr: Any, mesh: LinkMesh) -> Any:
    """Colours per vertex: vertices at the border of two materials belong to the last one that names them."""
    colours = np.full((len(mesh.vertices_m), 3), 200, np.uint8)
    for index, material in enumerate(mesh.materials):
        colours[mesh.faces[mesh.material_index == index].ravel()] = srgb(material.base_color_rgb)
    return rr.Mesh3D(
        vertex_positions=mesh.vertices_m, triangle_indices=mesh.faces, vertex_normals=mesh.vertex_normals, vertex_colors=colours
    )


def _transform(rr: Any, T: np.ndarray) -> Any:
    return rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3])
