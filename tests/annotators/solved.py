"""A Panda before a camera that goes round it, in memory, with the Solution that says exactly what is true."""

from functools import lru_cache

import numpy as np

from annotators.anchor_posterior import output_keypoints
from annotators.robot_view import RobotView
from annotators.types import Capture, Flag, JointLog, ScaleEstimate, Solution
from dataengine.geometry import se3
from dataengine.robot.catalogue import load_robot
from tests.annotators.captures import picture

SIZE = (160, 120)
K = np.array([[150.0, 0, 79.5], [0, 150.0, 59.5], [0, 0, 1]])
N = 5


@lru_cache(maxsize=1)
def panda_view() -> RobotView:
    return RobotView(load_robot("panda"))


@lru_cache(maxsize=1)
def world():
    """(capture, solution): the last frame is rejected; a block stands before the robot in frame 2."""
    robot = panda_view()
    points = output_keypoints(robot.model)
    rng = np.random.default_rng(0)
    times = np.arange(N) / 5
    q = (robot.model.q_lower + robot.model.q_upper) / 2 + 0.2 * np.sin(np.outer(times, np.linspace(1, 2, robot.model.dof)))
    q = np.clip(q, robot.model.q_lower, robot.model.q_upper)
    T_world_cam = np.stack([se3.look_at((1.3 * np.cos(0.1 * k), 1.3 * np.sin(0.1 * k), 0.8), (0, 0, 0.45)) for k in range(N)])
    T_world_base = se3.make(se3.rotation_from_axis_angle((0, 0, 1.0), 0.3), (0.05, 0.02, 0.0))
    T_cam_base = se3.inverse(T_world_cam) @ T_world_base
    links = [robot.poses(q[k], T_cam_base[k]) for k in range(N)]
    views = [robot.view(K, SIZE, T) for T in links]
    rgb = [np.where(v.link_id[..., None] > 0, 200, picture(rng, SIZE)).astype(np.uint8) for v in views]
    depth = [np.where(v.depth_z_m > 0, v.depth_z_m, 2.5).astype(np.float32) for v in views]
    mask = [v.link_id > 0 for v in views]
    depth[2][40:70, 60:90] = 0.5
    mask[2][40:70, 60:90] = False
    capture = Capture(
        "solved", tuple(f"{k:06d}" for k in range(N)), SIZE, K, times, rgb.__getitem__, "panda",
        depth.__getitem__, mask.__getitem__, joints=JointLog(times, q),
    )  # fmt: skip
    keypoints = np.stack([points.positions(T) for T in links])
    solution = Solution(
        metres_per_unit=0.7,
        T_world_cam=T_world_cam,
        T_world_base=np.broadcast_to(T_world_base, (N, 4, 4)).copy(),
        joints_rad=q,
        joint_names=robot.model.actuated,
        camera_covariance=np.broadcast_to(np.diag([1e-6] * 3 + [1e-8] * 3), (N, 6, 6)).copy(),
        base_covariance=np.diag([4e-6] * 3 + [1e-6] * 3),
        joint_covariance=np.broadcast_to(np.eye(robot.model.dof) * 1e-6, (N, robot.model.dof, robot.model.dof)).copy(),
        keypoint_names=points.names,
        keypoints_cam_m=keypoints,
        keypoint_covariance=np.broadcast_to(np.eye(3) * 1e-6, (N, len(points), 3, 3)).copy(),
        time_offset_s=0.001,
        depth_scale=1.002,
        scales=(ScaleEstimate("depth", 0.7, 0.001), ScaleEstimate("links", 0.701, 0.002)),
        click_residual_px=rng.normal(0, 2, (30, 2)),
        click_inlier=np.arange(30) != 7,
        accepted=np.arange(N) < N - 1,
        reasons=("",) * (N - 1) + ("keypoints uncertain: 14 mm, allowed 10 mm",),
        flags=(Flag("wrong_click", "1 click disagrees with all others: elbow in frame 2", (2,)),),
    )
    return capture, solution
