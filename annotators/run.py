"""The stages of an annotation, each kept in a file that names its inputs, so that none is done twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from annotators.capture_spec import CaptureError, CaptureSpec, read_spec
from annotators.progress import Bars
from annotators.stages import key_of, key_of_files, load, load_json, once, save_json
from annotators.types import CameraTrack, Capture, Click, Flag, Solution

if TYPE_CHECKING:
    from annotators.anchor_state import AnchorOptions
    from annotators.objects import PosedObject

Array = np.ndarray

MOVED_RAD = 0.02
"""A joint that moves less over the clip leaves the robot where it was."""


@dataclass(frozen=True)
class Ingest:
    """What the first stage found: its key, flags and static segments."""

    key: str
    flags: tuple[Flag, ...]
    static: tuple[tuple[int, int], ...]


def ingest(path: Path, spec: CaptureSpec, capture: Capture, out: Path, bars: Bars) -> Ingest:
    """Quality control and static segments. CaptureError for a capture from which nothing can be solved."""
    from annotators.capture_checks import inspect, refuse_hopeless
    from annotators.static_camera import static_segments

    key = key_of(path.read_text(encoding="utf-8"), key_of_files(_files(path, spec)), list(capture.frames))
    stored = load_json(out / "stages" / "ingest.json", key)
    if stored is None:
        count = len(capture.frames)
        with bars.task("checking frames", 2 * count) as step:
            flags = inspect(capture, lambda i: step(i + 1))
            static = static_segments(capture, lambda i: step(count + i + 1))
        plain: dict[str, Any] = {"flags": [dataclasses.asdict(f) for f in flags], "static": [list(s) for s in static]}
        save_json(out / "stages" / "ingest.json", key, plain)
        stored = plain
    found = tuple(Flag(f["kind"], f["text"], tuple(f["frames"])) for f in stored["flags"])
    result = Ingest(key, found, tuple((int(a), int(b)) for a, b in stored["static"]))
    refuse_hopeless(spec, capture, result.static)
    return result


def cameras(capture: Capture, ingested: Ingest, out: Path, seed: int, bars: Bars, posed: Solution | None = None) -> tuple[CameraTrack, str]:
    """Camera poses and their key, with the robot left out of the images: as the given masks say, or, in a second pass, as `posed` says.

    CaptureError for images from which there are none, with the reason.
    """
    from annotators.sfm import solve_cameras

    second = "" if posed is None else "second pass"
    key = key_of("track 3", ingested.key, list(ingested.static), seed, *([] if posed is None else [posed.joints_rad, posed.T_world_base]))
    folder = out / ("sfm" if posed is None else "sfm2")
    shares: dict[str, float] = {}
    with bars.task(f"camera poses {second}".strip(), 100) as step:

        def told(stage: str, share: float) -> None:
            shares[stage] = share
            step(100 * sum(shares.values()) / max(len(shares), 4), f"camera poses {second}: {stage}")

        def solve() -> CameraTrack:
            masks = capture.mask if posed is None else robot_masks(capture, posed)
            return solve_cameras(capture, folder, ingested.static, masks, "auto", seed, told)

        track = once(folder / "track.npz", key, CameraTrack, solve)
    if track.refusal is not None:
        raise CaptureError(f"{capture.name}: {'; '.join([track.refusal, *(flag.text for flag in track.flags)])}")
    return track, key


def needs_second_pass(capture: Capture, track: CameraTrack, found: Solution) -> bool:
    """Whether the robot moved before a moving camera without masks that tell where it was: points on it misled the cameras."""
    moved = float(np.ptp(found.joints_rad[np.isfinite(found.joints_rad).all(1)], axis=0).max(initial=0))
    return capture.mask is None and track.mapper != "static" and moved > MOVED_RAD


def robot_masks(capture: Capture, posed: Solution) -> Callable[[int], Array]:
    """The solved robot's silhouette by frame; nothing where a frame has no pose."""
    from annotators.robot_view import RobotView, T_cam_base_of
    from dataengine.robot.catalogue import load_robot

    robot = RobotView(load_robot(capture.robot))

    def mask(i: int) -> Array:
        T_cam_base = T_cam_base_of(posed.T_world_cam[i], posed.T_world_base[i])
        if not (np.isfinite(T_cam_base).all() and np.isfinite(posed.joints_rad[i]).all()):
            return np.zeros(capture.size[::-1], bool)
        return robot.view(capture.K, capture.size, robot.poses(posed.joints_rad[i], T_cam_base)).link_id > 0

    return mask


def solution(
    spec: CaptureSpec, capture: Capture, track: CameraTrack, clicks: tuple[Click, ...], out: Path, track_key: str, bars: Bars
) -> tuple[Solution, dict[str, Any], str]:
    """The anchor solve and how far it moves when clicks are left out."""
    from annotators.anchor import solve
    from annotators.anchor_state import clicks_alone
    from annotators.spreads import leave_one_out, odd_even

    options, told = options_of(spec), told_joints(spec, capture)
    key = key_of("solution 1", track_key, [dataclasses.astuple(c) for c in clicks], dataclasses.asdict(options))
    path = out / "stages" / "solution.npz"
    fresh = load(path, key, Solution) is None
    with bars.task("solving", None):
        found = once(path, key, Solution, lambda: solve(told, track, clicks, options))
        spreads = load_json(out / "stages" / "spreads.json", key)
        if spreads is None:
            by_clicks = clicks_alone(options)
            spreads = {
                "odd_even": odd_even(lambda some: solve(told, track, some, options), clicks),
                "leave_one_out": leave_one_out(
                    lambda some: solve(told, track, some, by_clicks), clicks, found.click_residual_px, found.click_inlier
                ),
            }
            save_json(out / "stages" / "spreads.json", key, spreads)
    if fresh or not (out / "stages" / "verdict.json").is_file():
        write_verdict(capture, found, out)
    return found, spreads, key


def options_of(spec: CaptureSpec) -> AnchorOptions:
    """How far the joint log is to be believed, as the solver's option. A known log is still tested: `auto`."""
    from annotators.anchor_state import AnchorOptions

    match spec.joints_mode:
        case "offset":
            return AnchorOptions(joints="offset")
        case "unknown_constant":
            return AnchorOptions(joints="constant")
        case _:
            return AnchorOptions(joints="auto")


def told_joints(spec: CaptureSpec, capture: Capture) -> Capture:
    """The capture without its joint log where the log is not to be used."""
    return dataclasses.replace(capture, joints=None) if spec.joints_mode.startswith("unknown") else capture


def write_verdict(capture: Capture, found: Solution, out: Path) -> None:
    """What `annotate review` prints."""
    flags = [dataclasses.asdict(f) for f in found.flags]
    save_json(out / "stages" / "verdict.json", "verdict", {"frames": list(capture.frames), "reasons": list(found.reasons), "flags": flags})


def dataset(capture: Capture, found: Solution, posed: tuple[PosedObject, ...], out: Path, key: str, bars: Bars) -> Path:
    """The labelled video, committed."""
    from annotators.output import make_video, write_dataset
    from dataengine.errors import StoreError
    from dataengine.store.dataset import open_dataset

    folder = out / "dataset"
    if (folder / "manifest.json").is_file():
        try:
            existing = open_dataset(folder)
            if existing.spec.get("annotated") == {"key": key} and existing.videos():
                return folder
        except StoreError:
            pass  # a half-made or damaged product is made anew below
    with bars.task("labels", len(capture.frames)) as step:
        write_dataset(folder, make_video(capture, found, lambda i: step(i + 1), posed), key)
    return folder


def page(
    capture: Capture, found: Solution, ingested: Ingest, clicks: tuple[Click, ...],
    spreads: dict[str, Any], out: Path, key: str, bars: Bars,
) -> Path:  # fmt: skip
    """The page that shows whether to believe the labels."""
    from annotators.qa import write_page
    from dataengine.store.dataset import open_dataset

    path = out / "qa.html"
    if load_json(out / "stages" / "qa.json", key) is not None and path.is_file():
        return path
    with bars.task("QA page", len(capture.frames)) as step, open_dataset(out / "dataset").reader(0) as reader:
        write_page(path, capture, found, clicks, ingested.flags, spreads, reader.video(), lambda i: step(i + 1))
    save_json(out / "stages" / "qa.json", key, True)
    return path


def clicks_of(
    spec: CaptureSpec, capture: Capture, track: CameraTrack, out: Path, path: Path | None, ui: bool, port: int, bars: Bars
) -> tuple[Click, ...]:
    """The clicks of a file, of an earlier session in `out`, or made now in the browser, in frames with a camera pose.

    CaptureError where there is nothing to go by.
    """
    from annotators.clicks_file import read_clicks

    earlier = out / "clicks" / "clicks.json"
    given = path or (earlier if earlier.is_file() else None)
    clicks = read_clicks(given, capture) if given is not None else ()
    if ui:
        from annotators.session import click_in_browser

        with bars.paused():
            click_in_browser(told_joints(spec, capture), track, options_of(spec), out / "clicks", clicks, port)
        clicks = read_clicks(earlier, capture)
    if not clicks and (capture.depth_z_m is None or capture.mask is None):
        raise CaptureError(
            f"{capture.name}: there are no clicks, and without them masks and depth are needed; give --clicks clicks.json or --ui"
        )
    return tuple(c for c in clicks if track.posed[c.frame])


def _files(path: Path, spec: CaptureSpec) -> list[Path]:
    """All files that the capture's YAML names."""
    _, source = read_spec(path)
    named = (
        ("images", spec.images), ("depth.path", spec.depth.path), ("masks.path", spec.masks.path), ("joints.path", spec.joints.path),
        ("infrared.left", spec.infrared.left), ("infrared.right", spec.infrared.right), ("intrinsics.file", spec.intrinsics.file),
        ("timestamps", spec.timestamps),
    )  # fmt: skip
    found: list[Path] = []
    for key, text in named:
        if text is not None:
            at = source.path(key, text)
            found += [p for p in at.iterdir() if p.is_file()] if at.is_dir() else list(at.parent.glob(at.name))
    return found
