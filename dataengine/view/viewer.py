"""`dataengine view`: a dataset in the browser. The robot moves through the clip, measured beside true depth, any pixel tells its labels.

The state lives in the server and is shared by every browser that opens the page. Callbacks come from viser's thread pool, so
each takes the viewer's lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dataengine.errors import RobotError, StoreError
from dataengine.geometry import se3
from dataengine.record.video import Video
from dataengine.robot.catalogue import load_robot
from dataengine.robot.meshes import LinkMesh, load_link_meshes
from dataengine.store.dataset import Dataset
from dataengine.store.shard import ShardReader
from dataengine.view import viewer_scene as scene
from dataengine.view.panels import NAMES as PANEL_NAMES
from dataengine.view.panels import available, clip_range_m, draw
from dataengine.view.pixels import png_uri
from dataengine.view.viewer_controls import BESIDE, HINT, LAYERS, Controls, build_controls, pixel_table
from dataengine.view.viewer_geometry import (
    Cloud,
    PicturePlane,
    beside_m,
    camera_pose,
    depth_cloud,
    intrinsics,
    nearest_on_ray,
    working_depth_m,
)
from dataengine.view.viewer_pixel import PixelValue, pixel_values
from dataengine.view.viewer_server import by_hand, close_server, open_server

if TYPE_CHECKING:
    import viser

Array = np.ndarray
MAX_POINTS = 240_000
PICTURE_DISTANCE_M = 0.35
CLOUDS = {"True depth": ("/clouds/true", "depth_z"), "Measured depth": ("/clouds/measured", "depth_sim")}
LOUPE_PX, LOUPE_SCALE = 25, 8
FOV_RAD = np.deg2rad(50)
POLL_S = 0.05


class Viewer:
    """One dataset on one server. `show_video`, `show_frame` and `show_pixel` do what the panel's controls do."""

    def __init__(self, dataset: Dataset, server: viser.ViserServer, video: int) -> None:
        self.server, self._dataset, self._lock = server, dataset, threading.RLock()
        self._units = [record.video for record in dataset.committed().values()]
        self._reader: ShardReader = dataset.reader(video)
        self.video = video
        self.frame = 0
        self.pixel: tuple[int, int] | None = None
        self.values: list[PixelValue] = []
        self._meshes: dict[str, tuple[list[LinkMesh], str]] = {}
        self.robot: dict[str, Any] = {}
        self._objects: list[Any] = []
        self._clouds: dict[str, tuple[Cloud, Array]] = {}
        self._shift = np.zeros(3)
        server.scene.set_up_direction("+z")
        server.scene.configure_default_lights(cast_shadow=False)
        self.controls: Controls = build_controls(server, [str(unit) for unit in self._units])
        self.show_video(video)
        self._connect()

    # ---- what is shown ----------------------------------------------------------------------------------------------

    def show_video(self, video: int) -> None:
        """Open a video at its first frame. Raises StoreError when there is none of that number."""
        reader = self._dataset.reader(video)
        with self._lock, self.server.atomic():
            self._reader.close()
            self._reader, self.video, self.frame, self.pixel = reader, video, 0, None
            self._rows, self._names = reader.frames(), reader.names
            first = self._one_frame(0)
            self._range_m = clip_range_m(first)
            self._set_controls(first)
            for branch in ("/robot", "/objects", "/keypoints", "/clouds", "/cameras", "/picture", "/pick", "/titles"):
                self.server.scene.remove_by_name(branch)
            self._roots = {name: self.server.scene.add_frame(where, show_axes=False) for name, where in _BRANCHES.items()}
            meshes, remark = self._robot_meshes(reader.scene.get("robot", {}).get("name"))
            self.robot = scene.add_robot(self.server, self._names.links, meshes)
            self._objects = scene.add_objects(self.server, self._names, reader.scene.get("objects", []))
            scene.draw_path(self.server, [self._plane(f, 0.08) for f in range(len(self._rows))])
            self._shift = self._beside(first)
            self.show_frame(0)
            self._say(reader, remark)
            self._apply_layers()
        self._set_first_view()

    def show_frame(self, frame: int) -> None:
        """Move everything to a frame of the current video."""
        with self._lock, self.server.atomic():
            self.frame = int(np.clip(frame, 0, len(self._rows) - 1))
            self._video = self._one_frame(self.frame)
            row, pose = self._rows[self.frame], camera_pose(self._rows[self.frame])
            for link, T_cam_link in zip(self._names.links, row["T_cam_link"], strict=True):
                scene.place(self.robot[link], pose @ T_cam_link)
            for handle, T_cam_object in zip(self._objects, row["T_cam_object"], strict=True):
                scene.place(handle, pose @ T_cam_object)
            scene.draw_keypoints(self.server, se3.transform(pose, row["keypoints_cam_m"]), row["keypoint_state"])
            scene.draw_frustum(self.server, self._plane(self.frame))
            self._draw_clouds()
            self._draw_picture()
            if self.pixel is not None:
                self.show_pixel(*self.pixel)

    def show_pixel(self, u: int, v: int) -> list[PixelValue]:
        """Mark a pixel and list every modality's value there."""
        with self._lock, self.server.atomic():
            height, width = self._video.size
            u, v = int(np.clip(u, 0, width - 1)), int(np.clip(v, 0, height - 1))
            self.pixel, self.values = (u, v), pixel_values(self._video, 0, u, v)
            self.controls.u.value, self.controls.v.value = u, v
            self.controls.table.content = pixel_table(u, v, self.values)
            self.controls.loupe.content = loupe(self._picture, u, v)
            scene.draw_pick(self.server, self._plane(self.frame, 0.998 * PICTURE_DISTANCE_M), (u, v), self._places(u, v))
            return self.values

    def pick(self, origin_m: Array, direction: Array) -> tuple[int, int] | None:
        """The pixel that a ray through the scene means: on the picture, else of the cloud point it passes first."""
        with self._lock:
            found: list[tuple[float, tuple[int, int]]] = []
            plane = self._plane(self.frame)
            hit = plane.pixel(origin_m, direction) if self.controls.layers["Picture"].value else None
            if hit is not None:
                u, v = (round(x) for x in hit)
                found.append((float(np.linalg.norm(plane.point_m(u, v) - origin_m)), (u, v)))
            for name, (cloud, shift) in self._clouds.items():
                if self.controls.layers[name].value:
                    row = nearest_on_ray(cloud.points_m + shift, origin_m, direction)
                    if row is not None:
                        far = float(np.linalg.norm(cloud.points_m[row] + shift - origin_m))
                        found.append((far, (int(cloud.pixels[row, 0]), int(cloud.pixels[row, 1]))))
            return min(found)[1] if found else None

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Play where playing is on, until ``until`` says stop; KeyboardInterrupt passes through."""
        while not until():
            time.sleep(1 / self.controls.rate.value if self.controls.play.value else POLL_S)
            if self.controls.play.value:
                self.controls.frame.value = (self.frame + 1) % len(self._rows)

    def stop(self) -> None:
        """End the server; browsers that show it say so."""
        close_server(self.server)

    # ---- parts ------------------------------------------------------------------------------------------------------

    def _one_frame(self, frame: int) -> Video:
        return self._reader.video(frames=[frame])

    def _plane(self, frame: int, distance_m: float = PICTURE_DISTANCE_M) -> PicturePlane:
        height, width = self._reader.size
        return PicturePlane(self._K(frame), camera_pose(self._rows[frame]), width, height, distance_m)

    def _K(self, frame: int) -> Array:
        height, width = self._reader.size
        return intrinsics(self._rows[frame], width, height)

    def _places(self, u: int, v: int) -> list[Array]:
        """Where a pixel lies in each cloud that has it."""
        places = []
        for layer, (_, modality) in CLOUDS.items():
            depth = float(self._video.images[modality][0, v, u]) if modality in self._video.images else 0.0
            if depth > 0 and layer in self._clouds:
                places.append(self._plane(self.frame, depth).point_m(u, v) + self._clouds[layer][1])
        return places

    def _robot_meshes(self, name: str | None) -> tuple[list[LinkMesh], str]:
        """Meshes of the robot the record names, or none and a remark."""
        if name is None:
            return [], ""
        if name not in self._meshes:
            try:
                self._meshes[name] = load_link_meshes(load_robot(name)), ""
            except RobotError as error:
                self._meshes[name] = [], f"links show as axes: {error}"
        return self._meshes[name]

    def _set_controls(self, first: Video) -> None:
        panels = tuple(p.name for p in available(first, PANEL_NAMES))
        c = self.controls
        c.video.value = str(self.video)
        c.frame.max, c.frame.value = max(1, len(self._rows) - 1), 0
        for chooser in (c.picture, c.point_colour):
            kept = chooser.value
            chooser.options = panels or ("none",)
            chooser.value = kept if kept in panels else (*panels, "none")[0]
        c.reach.value = float(np.clip(round(working_depth_m(first) / 0.05) * 0.05, 0.3, 8.0))
        c.table.content, c.loupe.content = f"<p style='padding:0 1em;opacity:.7'>{HINT}</p>", ""

    def _say(self, reader: ShardReader, remark: str) -> None:
        height, width = reader.size
        rejected = f"\n\nrejected: {reader.attributes['rejection']}" if reader.attributes["rejection"] else ""
        if not np.isfinite(self._rows["K"]).all():
            remark = "no intrinsics are stored: clouds are drawn as if the picture were 60° wide " + remark
        text = f"**{self._dataset.name}** · video {self.video} of {len(self._units)} · {len(self._rows)} frames of {width} × {height}"
        self.controls.note.content = text + rejected + (f"\n\n{remark}" if remark else "")

    def _beside(self, first: Video) -> Array:
        if self.controls.arrange.value != BESIDE or "depth_z" not in first.images:
            return np.zeros(3)
        pose = camera_pose(self._rows[0])
        cloud = depth_cloud(first.images["depth_z"][0], self._K(0), pose, self.controls.reach.value, 20_000)
        return beside_m(cloud, pose)

    def _draw_clouds(self) -> None:
        image = self._panel(self.controls.point_colour.value)
        pose, K = camera_pose(self._rows[self.frame]), self._K(self.frame)
        self._clouds.clear()
        for layer, (where, modality) in CLOUDS.items():
            if modality in self._video.images and image is not None:
                cloud = depth_cloud(self._video.images[modality][0], K, pose, self.controls.reach.value, MAX_POINTS)
                shift = self._shift if layer == "Measured depth" else np.zeros(3)
                self._clouds[layer] = cloud, shift
                visible = self.controls.layers[layer].value
                scene.draw_cloud(self.server, where, cloud, image, self.controls.point_size.value / 1e3, shift, visible)
        scene.draw_titles(self.server, self._titles() if self._shift.any() else {})

    def _titles(self) -> dict[str, Array]:
        """The layer's name in front of each cloud."""
        pose = camera_pose(self._rows[0])
        ahead = pose[:3, 3] + pose[:3, 2] * 0.55 * self.controls.reach.value
        return {name.lower(): (ahead + shift) * (1, 1, 0) for name, (_, shift) in self._clouds.items()}

    def _draw_picture(self) -> None:
        picture = self._panel(self.controls.picture.value)
        height, width = self._video.size
        self._picture = np.zeros((height, width, 3), np.uint8) if picture is None else picture
        if picture is not None:
            scene.draw_picture(self.server, self._plane(self.frame), picture, self.controls.layers["Picture"].value)

    def _panel(self, name: str) -> Array | None:
        return draw(self._video, 0, name, self._range_m) if name in PANEL_NAMES else None

    def _apply_layers(self) -> None:
        for layer in LAYERS:
            self._apply_layer(layer)

    def _apply_layer(self, layer: str) -> None:
        where = _BRANCHES.get(layer) or {"Keypoints": "/keypoints", "Picture": "/picture"}.get(layer) or CLOUDS[layer][0]
        handle = self.server.scene.get_handle_by_name(where)
        if handle is not None:
            handle.visible = self.controls.layers[layer].value

    def _set_first_view(self) -> None:
        eye, target = self._overview()
        camera = self.server.initial_camera
        camera.position, camera.look_at, camera.fov = eye, target, FOV_RAD
        for client in self.server.get_clients().values():
            client.camera.position, client.camera.look_at = eye, target

    def _overview(self) -> tuple[Array, Array]:
        """Eye and target that show both clouds from behind the camera."""
        pose = camera_pose(self._rows[0])
        forward = pose[:3, 2]
        depth = self.controls.reach.value
        target = pose[:3, 3] + forward * 0.62 * depth + self._shift / 2
        level = forward * (1, 1, 0)
        level = level / max(float(np.linalg.norm(level)), 1e-9)
        away = max(0.9 * depth, 1.7 * float(np.linalg.norm(self._shift)))
        return target + away * (np.array([0, 0, 0.7]) - 0.7 * level), target

    def _look_through(self, client: Any) -> None:
        """Put a browser's eye into the camera, so that the picture fills its window."""
        pose, K = camera_pose(self._rows[self.frame]), self._K(self.frame)
        height, width = self._reader.size
        tall = max(height / K[1, 1], width / K[0, 0] / max(client.camera.aspect, 1e-3))
        with client.atomic():
            client.camera.position = pose[:3, 3]
            client.camera.look_at = self._plane(self.frame).point_m((width - 1) / 2, (height - 1) / 2)
            client.camera.up_direction = -pose[:3, 1]
            client.camera.fov = 2 * float(np.arctan(tall / 2)) * 1.02

    def _look_over(self, client: Any) -> None:
        eye, target = self._overview()
        with client.atomic():
            client.camera.up_direction = (0.0, 0.0, 1.0)
            client.camera.position, client.camera.look_at, client.camera.fov = eye, target, FOV_RAD

    def _connect(self) -> None:
        """Every control calls what it stands for."""
        c, server = self.controls, self.server
        c.video.on_update(lambda e: self.show_video(int(c.video.value)) if int(c.video.value) != self.video else None)
        c.frame.on_update(lambda e: self.show_frame(int(c.frame.value)) if int(c.frame.value) != self.frame else None)
        c.picture.on_update(lambda e: self._locked(self._draw_picture))
        for control in (c.point_colour, c.point_size, c.reach):
            control.on_update(lambda e: self._locked(self._draw_clouds))
        c.arrange.on_update(lambda e: self._locked(self._rearrange))
        for number in (c.u, c.v):
            by_hand(number, self._typed_pixel)
        for layer, box in c.layers.items():
            box.on_update(lambda e, layer=layer: self._apply_layer(layer))
        c.through.on_click(lambda e: self._look_through(e.client))
        c.overview.on_click(lambda e: self._look_over(e.client))
        server.scene.on_click()(lambda e: self._clicked(np.array(e.ray_origin), np.array(e.ray_direction)))
        for label, key, action in self._commands():
            server.gui.add_command(label, hotkey=key).on_trigger(action)

    def _commands(self) -> list[tuple[str, Any, Callable[[Any], None]]]:
        c = self.controls

        def step(by: int) -> None:
            c.frame.value = (self.frame + by) % len(self._rows)

        return [
            ("Next frame", "F", lambda e: step(1)), ("Previous frame", "D", lambda e: step(-1)),
            ("Play or pause", "space", lambda e: setattr(c.play, "value", not c.play.value)),
            ("Through the camera", "C", lambda e: self._look_through(e.client)), ("Overview", "V", lambda e: self._look_over(e.client)),
        ]  # fmt: skip

    def _clicked(self, origin_m: Array, direction: Array) -> None:
        pixel = self.pick(origin_m, direction)
        if pixel is not None:
            self.show_pixel(*pixel)

    def _typed_pixel(self) -> None:
        self.show_pixel(int(self.controls.u.value), int(self.controls.v.value))

    def _rearrange(self) -> None:
        self._shift = self._beside(self._one_frame(0))
        self._draw_clouds()

    def _locked(self, action: Callable[[], None]) -> None:
        with self._lock, self.server.atomic():
            action()


_BRANCHES = {"Robot": "/robot", "Objects": "/objects", "Cameras": "/cameras"}


def loupe(picture: Array, u: int, v: int) -> str:
    """HTML of the surroundings of a pixel, magnified, the pixel itself in a frame."""
    half = LOUPE_PX // 2
    padded = np.pad(picture, ((half, half), (half, half), (0, 0)))
    side = LOUPE_PX * LOUPE_SCALE
    frame = f"position:absolute;left:{half * LOUPE_SCALE}px;top:{half * LOUPE_SCALE}px;width:{LOUPE_SCALE}px;height:{LOUPE_SCALE}px"
    return (
        f"<div style='position:relative;width:{side}px;margin:.4em auto'>"
        f"<img src='{png_uri(padded[v : v + LOUPE_PX, u : u + LOUPE_PX])}' style='width:{side}px;image-rendering:pixelated;display:block'>"
        f"<div style='{frame};box-sizing:border-box;border:2px solid #ff40a0'></div></div>"
    )


def open_viewer(dataset: Dataset, video: int | None, host: str, port: int) -> Viewer:
    """A viewer at http://host:port/, showing ``video`` (default: the first). ViewError where no server can be had."""
    videos = [record.video for record in dataset.committed().values()]
    if not videos:
        raise StoreError(f"{dataset.path} holds no video yet; render some first")
    first = videos[0] if video is None else dataset.record(video).video
    server = open_server(host, port, dataset.name)
    try:
        return Viewer(dataset, server, first)
    except BaseException:
        close_server(server)
        raise
