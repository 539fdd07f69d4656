"""What the viewer draws: a robot of posed link meshes, clouds, boxes, frusta. Each function adds or moves viser nodes.

Everything is in the dataset's world frame, in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dataengine.geometry import se3
from dataengine.record.video import Names
from dataengine.robot.meshes import LinkMesh
from dataengine.view.palette import object_colours
from dataengine.view.viewer_geometry import Cloud, PicturePlane, box_edges

if TYPE_CHECKING:
    import viser

Array = np.ndarray
MAX_FRUSTA = 60
PICK_COLOUR = (255, 64, 160)
STATE_COLOURS = np.array([(120, 124, 134), (255, 138, 61), (74, 222, 128)], np.uint8)
"""Keypoint state 0 outside, 1 occluded, 2 visible."""


def add_robot(server: viser.ViserServer, links: Sequence[str], meshes: Sequence[LinkMesh]) -> dict[str, Any]:
    """One frame node per link with its meshes below, one per material. {link: handle}; links without meshes show as axes."""
    shown = {mesh.link: mesh for mesh in meshes}
    handles = {}
    for link in links:
        handles[link] = server.scene.add_frame(f"/robot/{link}", show_axes=not meshes, axes_length=0.07, axes_radius=0.003)
        if link in shown:
            _add_materials(server, f"/robot/{link}", shown[link])
    return handles


def _add_materials(server: viser.ViserServer, where: str, mesh: LinkMesh) -> None:
    for index, material in enumerate(mesh.materials):
        used, faces = np.unique(mesh.faces[mesh.material_index == index], return_inverse=True)
        if len(used):
            server.scene.add_mesh_simple(
                f"{where}/{index}", mesh.vertices_m[used].astype(np.float32), faces.reshape(-1, 3).astype(np.uint32),
                color=srgb(material.base_color_rgb), cast_shadow=False, receive_shadow=False,
            )  # fmt: skip


def srgb(linear: tuple[float, float, float]) -> tuple[int, int, int]:
    """Linear 0…1 → sRGB 0–255 (IEC 61966-2-1)."""
    x = np.clip(np.asarray(linear, np.float64), 0, 1)
    r, g, b = np.round(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(int)
    return int(r), int(g), int(b)


def place(handle: Any, T_world_node: Array) -> None:
    """Move a node; a pose with nan hides it."""
    known = bool(np.isfinite(T_world_node).all())
    handle.visible = known
    if known:
        handle.wxyz, handle.position = se3.quaternion_wxyz(T_world_node[:3, :3]), T_world_node[:3, 3]


def add_objects(server: viser.ViserServer, names: Names, objects: Sequence[dict[str, Any]]) -> list[Any]:
    """A frame node per object with the edges of its bounding box and its name."""
    sizes = {entry.get("name"): entry.get("size_m") for entry in objects}
    handles = []
    for index, name in enumerate(names.objects):
        where = f"/objects/{index}"
        handles.append(server.scene.add_frame(where, show_axes=False))
        if (size := sizes.get(name)) is not None:
            red, green, blue = (int(c) for c in object_colours()[index + 1])
            server.scene.add_line_segments(f"{where}/box", box_edges(size).astype(np.float32), (red, green, blue), thickness=0.003)
    return handles


def draw_cloud(server: viser.ViserServer, name: str, cloud: Cloud, image: Array, size_m: float, shift_m: Array, visible: bool) -> None:
    """A cloud with the colours of ``image`` (H, W, 3) at its pixels, moved by ``shift_m``."""
    u, v = cloud.pixels.T
    server.scene.add_point_cloud(
        name, cloud.points_m.astype(np.float32), image[v, u], point_size=size_m, point_shape="circle", point_shading="flat",
        precision="float32", position=shift_m, visible=visible,
    )  # fmt: skip


def draw_keypoints(server: viser.ViserServer, points_world_m: Array, state: Array) -> None:
    """Dots: green visible, orange hidden, grey outside the image."""
    known = np.isfinite(points_world_m).all(-1)
    server.scene.add_point_cloud(
        "/keypoints", points_world_m[known].astype(np.float32), STATE_COLOURS[state[known]], point_size=0.012, point_shape="circle",
        point_shading="flat", precision="float32",
    )  # fmt: skip


def draw_path(server: viser.ViserServer, planes: Sequence[PicturePlane]) -> None:
    """The cameras of a whole clip as small frusta; cameras that stand still are drawn once."""
    distinct: list[PicturePlane] = []
    for plane in planes:
        if not distinct or not np.allclose(plane.T_world_cam, distinct[-1].T_world_cam, atol=1e-4):
            distinct.append(plane)
    chosen = distinct[:: max(1, len(distinct) // MAX_FRUSTA)]
    segments = np.concatenate([frustum_edges(plane) for plane in chosen])
    server.scene.add_line_segments("/cameras/path", segments.astype(np.float32), (96, 102, 116), thickness=1.0, thickness_units="screen")


def draw_frustum(server: viser.ViserServer, plane: PicturePlane) -> None:
    """The current camera: its pyramid up to the picture."""
    edges = frustum_edges(plane).astype(np.float32)
    server.scene.add_line_segments("/cameras/current", edges, (255, 196, 61), thickness=2.0, thickness_units="screen")


def draw_picture(server: viser.ViserServer, plane: PicturePlane, image: Array, visible: bool) -> None:
    """A picture (H, W, 3) exactly where its pixels' rays meet the plane."""
    width_m, height_m = plane.size_m
    T_world_picture = plane.T_world_cam @ se3.make(np.eye(3), plane.centre_cam_m)
    server.scene.add_image(
        "/picture", image, width_m, height_m, format="jpeg", jpeg_quality=92, cast_shadow=False, receive_shadow=False, visible=visible,
        wxyz=se3.quaternion_wxyz(T_world_picture[:3, :3]), position=T_world_picture[:3, 3],
    )  # fmt: skip


def frustum_edges(plane: PicturePlane) -> Array:
    """(8, 2, 3) edges of the pyramid from the camera to the corners of its picture."""
    corners, eye = plane.corners_m(), plane.T_world_cam[:3, 3]
    sides = [(eye, corner) for corner in corners]
    return np.array(sides + [(corners[k], corners[(k + 1) % 4]) for k in range(4)])


def draw_pick(server: viser.ViserServer, plane: PicturePlane, pixel: tuple[int, int], points_m: Sequence[Array]) -> None:
    """A cross around a pixel of the picture, and a ball at its point in each cloud."""
    u, v = pixel
    reach = 0.012 * plane.width
    ends = [(u - reach, v), (u - 1.5, v), (u + 1.5, v), (u + reach, v), (u, v - reach), (u, v - 1.5), (u, v + 1.5), (u, v + reach)]
    cross = np.array([plane.point_m(*end) for end in ends], np.float32).reshape(4, 2, 3)
    server.scene.add_frame("/pick", show_axes=False)
    server.scene.add_line_segments("/pick/cross", cross, PICK_COLOUR, thickness=2.0, thickness_units="screen")
    balls = np.asarray(points_m, np.float32).reshape(-1, 3)
    server.scene.add_point_cloud(
        "/pick/balls", balls, PICK_COLOUR, point_size=0.02, point_shape="circle", point_shading="flat", precision="float32"
    )


def draw_titles(server: viser.ViserServer, titles: dict[str, Array]) -> None:
    """{text: place (3,)}: words under the clouds."""
    for index, (text, place_m) in enumerate(titles.items()):
        server.scene.add_label(f"/titles/{index}", text, position=place_m, anchor="top-center", depth_test=True)
