"""A capture with exact truth for the app's tests: frames of a record, and a solver that answers at once from the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annotators.landmarks import Landmark, landmarks
from annotators.types import Capture, Click, Solution
from dataengine.errors import DataEngineError
from dataengine.geometry import camera
from dataengine.record.video import Video
from dataengine.robot.catalogue import load_robot
from dataengine.robot.kinematics import forward_kinematics


@dataclass(frozen=True)
class Hint:
    """A suggestion."""

    frame: int
    landmark: str
    expected_sd_m: float
    present_sd_m: float


@dataclass(frozen=True)
class Staged:
    """A rendered video as if it were a capture; `solve` and `suggest` have the app's signatures."""

    video: Video
    repeats: int = 4

    @property
    def points(self) -> tuple[Landmark, ...]:
        return landmarks(load_robot("panda"))

    def row(self, frame: int) -> np.void:
        return self.video.frames[frame % len(self.video.frames)]

    @property
    def capture(self) -> Capture:
        height, width = self.video.size
        count = self.repeats * len(self.video.frames)
        rgb = self.video.images["rgb"]
        return Capture(
            "staged", tuple(f"frame_{i:04d}" for i in range(count)), (width, height), self.row(0)["K"], np.arange(count) / 15.0,
            lambda i: rgb[i % len(rgb)], "panda",
        )  # fmt: skip

    def pixels(self, frame: int) -> dict[str, tuple[float, float]]:
        """Where every landmark truly is."""
        model, row = load_robot("panda"), self.row(frame)
        links = row["T_cam_base"] @ forward_kinematics(model, row["joint_position"][None])[0]
        found = {}
        for point in self.points:
            T = links[model.link_index(point.link)]
            u, v = camera.project(row["K"], T[:3, :3] @ point.offset_m + T[:3, 3])
            found[point.name] = (float(u), float(v))
        return found

    def solve(self, clicks: tuple[Click, ...]) -> Solution:
        if any(click.landmark == "flange" for click in clicks):
            raise DataEngineError("staged: no pose of the robot agrees with the clicks")
        count = len(self.capture.frames)
        rows = [self.row(i) for i in range(count)]
        sd = 0.012 / np.sqrt(len(clicks))
        residual = np.array([np.subtract(self.pixels(c.frame)[c.landmark], c.uv_px) for c in clicks]).reshape(-1, 2)
        reasons = tuple("blur" if i == 5 else "" for i in range(count))
        return Solution(
            metres_per_unit=1.0, T_world_cam=np.tile(np.eye(4), (count, 1, 1)), T_world_base=np.stack([r["T_cam_base"] for r in rows]),
            joints_rad=np.stack([r["joint_position"] for r in rows]), joint_names=self.video.names.joints,
            camera_covariance=np.zeros((count, 6, 6)), base_covariance=np.eye(6) * sd**2, joint_covariance=np.zeros((count, 8, 8)),
            keypoint_names=self.video.names.keypoints, keypoints_cam_m=np.stack([r["keypoints_cam_m"] for r in rows]),
            keypoint_covariance=np.tile(np.eye(3) * sd**2, (count, len(self.video.names.keypoints), 1, 1)), time_offset_s=0.0,
            depth_scale=1.0, scales=(), click_residual_px=residual, click_inlier=np.ones(len(clicks), bool),
            accepted=np.array([not r for r in reasons]), reasons=reasons,
        )  # fmt: skip

    def suggest(self, clicks: tuple[Click, ...]) -> Hint | None:
        sd = 0.012 / np.sqrt(len(clicks))
        return Hint(3, "hand_corner_left", 0.8 * sd, sd)
