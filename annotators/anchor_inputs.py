"""What the anchor solve reads, gathered and checked once, and turned into slots, measurements and a problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from annotators import anchor_icp, anchor_scale
from annotators.anchor_posterior import segments
from annotators.anchor_silhouette import Silhouette, silhouette_start
from annotators.anchor_start import LEAST_IN_FRAME, ClickTable
from annotators.anchor_state import AnchorOptions, JointMode, Problem, Slots, joints_at, make_layout
from annotators.anchor_surface import SlotImages, clean_mask, signed_distance
from annotators.anchor_terms import Measurements
from annotators.landmarks import landmark_rows, landmark_set
from annotators.motion_mask import gray
from annotators.types import Array, CameraTrack, Capture, Click, ScaleEstimate
from dataengine.errors import DataEngineError
from dataengine.robot.catalogue import load_robot
from dataengine.robot.keypoints import KeypointSet
from dataengine.robot.model import RobotModel

MIN_CLICKS = 6


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a solve reads, gathered once."""

    capture: Capture
    track: CameraTrack
    clicks: tuple[Click, ...]
    options: AnchorOptions
    masks: Callable[[int], Array] | None
    model: RobotModel
    landmarks: KeypointSet
    static: bool
    scales: tuple[ScaleEstimate, ...]
    given: tuple[Click, ...]
    """All clicks; `clicks` are those in frames that have a camera pose."""

    @property
    def has_surface(self) -> bool:
        """More than clicks can be compared with: depth, masks or the photographs' edges."""
        return self.masks is not None or self.options.use_edges or (self.capture.depth_z_m is not None and self.options.use_depth)

    @property
    def clicks_suffice(self) -> bool:
        """Whether a pose can be had from the clicks alone, with joints that are known or resting."""
        return len(self.clicks) >= MIN_CLICKS and most_in_frame(self.clicks) >= LEAST_IN_FRAME

    @property
    def surfaces_suffice(self) -> bool:
        """Whether a pose can be had without a click."""
        return surfaces_suffice(self.capture, self.track, self.options, self.masks is not None)

    @cached_property
    def silhouette(self) -> Silhouette | None:
        """Pose and pairing by masks alone, where they and a log are all there is to start from: a resting camera, no depth."""
        depth = self.capture.depth_z_m is not None and self.options.use_depth
        if self.masks is None or depth or not self.static or self.capture.joints is None:
            return None
        slots = choose_slots(self)
        q = joints_at(self.capture.joints, slots.times_s)[0]
        given = [image.mask for image in slot_images(self, slots)]
        if any(mask is None for mask in given):
            return None
        masks = [mask for mask in given if mask is not None]
        return silhouette_start(self.model, q, masks, self.capture.K, np.random.default_rng(self.options.seed))


def surfaces_suffice(capture: Capture, track: CameraTrack, options: AnchorOptions, masks: bool) -> bool:
    """Whether a pose can be had without a click: a joint log, and masks with depth or of a resting camera."""
    depth = capture.depth_z_m is not None and options.use_depth
    return masks and capture.joints is not None and (depth or _rests(track))


def _rests(track: CameraTrack) -> bool:
    return bool(np.ptp(track.T_world_cam[track.posed][:, :3, 3], axis=0).max(initial=0.0) < 1e-9)


def gather(
    capture: Capture, track: CameraTrack, clicks: Sequence[Click], options: AnchorOptions, masks: Callable[[int], Array] | None
) -> Inputs:
    """Check the inputs and measure the scale from all sources that need no robot."""
    if track.refusal is not None:
        raise DataEngineError(f"{capture.name}: no camera poses to solve with: {track.refusal}")
    model = load_robot(capture.robot)
    if not options.use_masks:
        masks = None
    elif masks is None:
        masks = capture.mask
    usable = tuple(click for click in clicks if 0 <= click.frame < len(capture.frames) and track.posed[click.frame])
    static = _rests(track)
    points = landmark_set(model)
    landmark_rows(points, [click.landmark for click in usable])
    sources = (anchor_scale.depth_scale if options.use_depth else None, anchor_scale.stereo_scale, anchor_scale.fiducial_scale)
    found = [] if static else [source(capture, track) for source in sources if source is not None]
    scales = tuple(scale for scale in found if scale is not None)
    inputs = Inputs(capture, track, usable, options, masks, model, points, static, scales, tuple(clicks))
    if not inputs.clicks_suffice and not inputs.surfaces_suffice:
        raise DataEngineError(
            f"{capture.name}: {len(usable)} clicks in frames with a camera pose, {most_in_frame(usable)} at most in one frame; at least "
            f"{MIN_CLICKS} are needed, {LEAST_IN_FRAME} of them in one frame (or a joint log with masks and depth)"
        )
    return inputs


def most_in_frame(clicks: Sequence[Click]) -> int:
    """Clicks of the frame that has most."""
    return max(Counter(click.frame for click in clicks).values(), default=0)


def choose_slots(inputs: Inputs) -> Slots:
    """Clicked frames, and frames spread evenly until there are enough whose depth or masks can take part."""
    frames = sorted({click.frame for click in inputs.clicks})
    missing = inputs.options.key_frames - len(frames)
    if inputs.has_surface and missing > 0:
        posed = np.flatnonzero(inputs.track.posed)
        spread = posed[np.linspace(0, len(posed) - 1, min(missing, len(posed))).astype(int)]
        frames = sorted({*frames, *(int(frame) for frame in spread)})
    index = np.array(frames, np.int64)
    return Slots(
        index,
        inputs.capture.times_s[index].astype(float),
        inputs.track.T_world_cam[index],
        np.nan_to_num(inputs.track.covariance[index]),
        segments(len(inputs.capture.frames), inputs.options.base_starts)[index],
        inputs.capture.size,
    )


def make_problem(inputs: Inputs, slots: Slots, mode: JointMode) -> Problem:
    """The problem of one joint mode."""
    depth = inputs.capture.depth_z_m is not None and inputs.options.use_depth
    options = inputs.options if log_has_a_clock(inputs.capture) else replace(inputs.options, estimate_time_offset=False)
    layout = make_layout(slots, inputs.model.dof, mode, options, inputs.static, depth)
    sources = tuple((s.source, s.metres_per_unit, s.sigma / s.metres_per_unit) for s in inputs.scales)
    return Problem(inputs.model, slots, layout, inputs.options, inputs.capture.joints, inputs.capture.K, sources, inputs.static)


def table(inputs: Inputs, slots: Slots) -> ClickTable:
    """Clicks as arrays."""
    slot_of = {int(frame): slot for slot, frame in enumerate(slots.frame)}
    rows = landmark_rows(inputs.landmarks, [click.landmark for click in inputs.clicks])
    slot = np.array([slot_of[click.frame] for click in inputs.clicks], np.int64)
    uv = np.array([click.uv_px for click in inputs.clicks], float).reshape(-1, 2)
    return ClickTable(slot, rows, undistort(uv, inputs.capture))


def undistort(uv_px: Array, capture: Capture) -> Array:
    """Pixels as an ideal pinhole camera of the same K would see them."""
    if capture.distortion is None or not len(uv_px):
        return uv_px
    import cv2

    return cv2.undistortPoints(uv_px[:, None], capture.K, capture.distortion, P=capture.K)[:, 0].astype(float)


def click_measurements(inputs: Inputs, slots: Slots) -> Measurements:
    """Clicks as measurements, all with weight one."""
    clicks, points = table(inputs, slots), inputs.landmarks
    n = len(clicks.row)
    sigma = np.full(n, inputs.options.click_sigma_px)
    return Measurements(
        "click", clicks.slot, points.link_index[clicks.row], points.offset_m[clicks.row], clicks.uv_px, np.zeros((n, 2)), sigma, np.ones(n)
    )


def slot_images(inputs: Inputs, slots: Slots) -> list[SlotImages]:
    """Depth and masks of the slots."""
    depth = inputs.capture.depth_z_m if inputs.options.use_depth else None
    out = []
    for frame in slots.frame:
        mask = None if inputs.masks is None else clean_mask(np.asarray(inputs.masks(int(frame)), bool))
        usable = mask if mask is not None and mask.any() else None
        edges = inputs.options.use_edges and usable is None and inputs.clicks_suffice
        out.append(
            SlotImages(
                None if depth is None else depth(int(frame)),
                usable,
                None if usable is None else signed_distance(usable),
                gray(inputs.capture, int(frame)) if edges else None,
            )
        )
    return out


def surface_start_data(inputs: Inputs, slots: Slots) -> list[Array]:
    """Masked depth points in the camera per slot, for a start without clicks; empty without masks or depth."""
    if inputs.masks is None or inputs.capture.depth_z_m is None:
        return []
    return [anchor_icp.masked_points(image.depth_z_m, image.mask, inputs.capture.K) for image in slot_images(inputs, slots)]


def log_has_a_clock(capture: Capture) -> bool:
    """The log runs on between the pictures, so that an offset of its clock has a meaning; one row per picture has none."""
    return capture.joints is not None and len(capture.joints.times_s) > 1.5 * len(capture.frames)
