"""Infrared images against geometry: where dots fall, how bright, where the projector does not reach."""

import numpy as np
import pytest

from benchmarks.sensor_bench import box, d415_rig, plane
from dataengine.errors import SensorError
from dataengine.geometry import se3
from dataengine.raycast.scene import RayScene
from dataengine.sensor.ir import IrNoise, IrPair, IrSurface, auto_exposure, render_ir_pair
from dataengine.sensor.pattern import CELL_PX, dot_table
from dataengine.sensor.rig import StereoRig

SILENT = IrNoise(speckle=0.0, read_e=0.0, full_e=1e9, ambient=0.0)
RIG = StereoRig(np.array([[231.0, 0, 159.5], [0, 231.0, 89.5], [0, 0, 1]]), 320, 180)


def wall(z: float, *, noise: IrNoise = SILENT, surface: IrSurface | None = None, seed: int = 0, rig: StereoRig = RIG, lights=()) -> IrPair:
    scene = RayScene([plane()])
    scene.pose(se3.make(np.eye(3), [0, 0, z])[None])
    return render_ir_pair(scene, [surface or IrSurface(0.5)], rig, np.eye(4), lights, noise, np.random.default_rng(seed))


def linear(image: np.ndarray) -> np.ndarray:
    return (image / 255.0) ** 1.6


def test_right_image_is_the_left_one_shifted_by_the_disparity() -> None:
    z = RIG.disparity_of_1m_px / 20  # exactly 20 px
    pair = wall(z)
    difference = pair.left[:, 20:].astype(int) - pair.right[:, :-20]
    assert np.abs(difference).mean() < 1.5  # light falls off from slightly different rays, dots do not move
    assert pair.left.std() > 40


def test_dots_fall_where_the_projector_sends_them() -> None:
    z = 0.8
    image = wall(z).left
    table = dot_table(0)
    shift = RIG.native_focal_px * RIG.projector_x_m / z
    hits, total = 0, 0
    for j in range(-12, 12):
        for i in range(-20, 12):
            offset_u, offset_v, peak = table[j % 512, i % 512]
            if peak == 0:
                continue
            column = (i + offset_u) * CELL_PX + shift + RIG.native_K[0, 2]
            row = (j + offset_v) * CELL_PX + RIG.native_K[1, 2]
            y, x = round(float(row)), round(float(column))
            hits += image[y, x] >= 0.75 * image[y - 3 : y + 4, x - 3 : x + 4].max()
            total += 1
    assert total > 500
    assert hits / total > 0.8  # a brighter neighbour may lie within 3 px


def test_light_falls_off_with_the_square_of_the_distance() -> None:
    near, far = wall(1.0), wall(2.0)
    assert far.exposure_gain / near.exposure_gain == pytest.approx(4, rel=0.03)
    assert wall(1.0, surface=IrSurface(1.0)).exposure_gain / near.exposure_gain == pytest.approx(0.5, rel=1e-3)
    assert wall(40.0).exposure_gain == 16.0
    assert auto_exposure(np.zeros((9, 9), np.float32)) == 16.0


def test_exposure_fills_the_range_without_blowing_it() -> None:
    image = linear(wall(1.0, noise=IrNoise()).left)
    assert np.percentile(image, 98) == pytest.approx(0.8, abs=0.08)
    assert (image >= 1).mean() < 0.02


def test_projector_shadow_beside_a_box() -> None:
    scene = RayScene([plane(), box((0.3, 0.3, 0.02))])
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, 2, 3] = 1.6, 0.81
    scene.pose(poses)
    pair = render_ir_pair(scene, [IrSurface(0.5)] * 2, RIG, np.eye(4), [], SILENT, np.random.default_rng(0))
    f, c = RIG.native_focal_px, RIG.native_K[0, 2]
    edge = c - 0.15 / 0.8 * f
    width = f * RIG.projector_x_m * (1 / 0.8 - 1 / 1.6)
    middle = linear(pair.left)[170:190]
    dark = middle[:, round(edge - width) + 3 : round(edge) - 2]
    assert dark.shape[1] >= 3
    assert dark.max() == 0
    assert middle[:, round(edge - 3 * width) : round(edge - width) - 2].max() > 0.05


@pytest.mark.parametrize("surface", [IrSurface(0.5, dropout=True), IrSurface(0.0)])
def test_mirrors_and_black_return_no_dots(surface: IrSurface) -> None:
    assert wall(1.0, surface=surface).left.max() == 0


def test_highlight_lies_between_eye_and_projector() -> None:
    image = linear(wall(1.0, surface=IrSurface(0.02, specular=1.0, glossiness=0.9)).left)
    bright = image > 0.5 * image.max()
    columns = np.flatnonzero(bright.any(axis=0))
    expected = RIG.native_K[0, 2] + RIG.native_focal_px * RIG.projector_x_m / 2
    assert columns.mean() == pytest.approx(expected, abs=12)
    assert bright[:, :200].sum() == 0


def test_other_light_adds_no_dots_but_lowers_contrast() -> None:
    lamp = [((0.0, -0.5, 0.0), 3.0)]
    lit = linear(wall(1.0, lights=lamp).left)
    assert np.percentile(lit, 2) > 5 * np.percentile(linear(wall(1.0).left), 2) + 0.02
    behind = wall(1.0, lights=[((0.0, 0.0, 3.0), 50.0)])  # the wall's far side
    assert np.array_equal(behind.left, wall(1.0).left)


def test_same_generator_same_bits() -> None:
    one, two, other = (wall(1.0, noise=IrNoise(), seed=s) for s in (5, 5, 6))
    assert np.array_equal(one.left, two.left)
    assert np.array_equal(one.right, two.right)
    assert not np.array_equal(one.left, other.left)
    assert not np.array_equal(wall(1.0).left, wall(1.0, noise=IrNoise(0.0, 1e9, 0.0, 0.0, pattern_seed=1)).left)


def test_speckle_is_multiplicative_and_independent_between_the_eyes() -> None:
    z = RIG.disparity_of_1m_px / 20
    clean, noisy = wall(z), wall(z, noise=IrNoise(speckle=0.2, read_e=0, full_e=1e9, ambient=0))
    ratio = {}
    for eye in ("left", "right"):
        reference = linear(getattr(clean, eye)) / clean.exposure_gain
        bright = (reference > 0.3 * reference.max()) & (reference < 0.6 * reference.max())
        ratio[eye] = np.where(bright, linear(getattr(noisy, eye)) / noisy.exposure_gain / np.maximum(reference, 1e-9), np.nan)
        assert np.nanstd(ratio[eye]) == pytest.approx(0.2, rel=0.06)
    left, right = ratio["left"][:, 20:], ratio["right"][:, :-20]
    both = np.isfinite(left) & np.isfinite(right)
    assert abs(np.corrcoef(left[both], right[both])[0, 1]) < 0.05


def test_albedo_pattern_follows_the_mesh_when_poses_are_given() -> None:
    scene, surface = RayScene([plane()]), [IrSurface(0.5, variation=1.0, scale_m=0.1)]
    images = []
    for shift, follow in ((0.0, True), (0.037, True), (0.037, False)):
        pose = se3.make(np.eye(3), [shift, 0, 1.0])[None]
        scene.pose(pose)
        camera = se3.make(np.eye(3), [shift, 0, 0])
        given = pose if follow else None
        images.append(render_ir_pair(scene, surface, RIG, camera, [], SILENT, np.random.default_rng(0), given).left.astype(int))
    assert np.abs(images[0] - images[1]).max() <= 2
    assert np.abs(images[0] - images[2]).mean() > 5


def test_empty_sky_is_black() -> None:
    scene = RayScene([box((0.1, 0.1, 0.1))])
    scene.pose(se3.make(np.eye(3), [0, 0, -5.0])[None])
    pair = render_ir_pair(scene, [IrSurface(0.5)], d415_rig(), np.eye(4), [], IrNoise(), np.random.default_rng(0))
    assert pair.left.max() < 30
    assert pair.left.shape == (720, 1280)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: IrSurface(1.2), "albedo is 1.2; it must lie in 0..1"),
        (lambda: IrSurface(0.5, specular=-1), "specular"),
        (lambda: IrSurface(0.5, scale_m=0), "scale_m"),
        (lambda: IrNoise(speckle=-0.1), "speckle is -0.1"),
        (lambda: IrNoise(full_e=0), "full_e"),
        (lambda: wall(1.0, lights=[((0, 0), 1.0)]), "is not usable"),
        (lambda: wall(1.0, lights=[((0, 0, 0), -1.0)]), "strength >= 0"),
        (lambda: bad_pair(surfaces=[]), "0 infrared surfaces for a scene of 1 meshes"),
        (lambda: bad_pair(T_world_cam=np.eye(3)), "T_world_cam"),
        (lambda: bad_pair(T_world_cam=2 * np.eye(4)), "not rigid"),
        (lambda: bad_pair(T_world_mesh=np.tile(np.eye(4), (3, 1, 1))), "T_world_mesh has shape"),
    ],
)
def test_bad_input(make, says: str) -> None:
    with pytest.raises(SensorError, match=says):
        make()


def bad_pair(**change: object) -> IrPair:
    scene = RayScene([plane()])
    scene.pose(np.eye(4)[None])
    given = {"surfaces": [IrSurface(0.5)], "T_world_cam": np.eye(4), "T_world_mesh": None, **change}
    return render_ir_pair(
        scene, given["surfaces"], RIG, given["T_world_cam"], [], SILENT, np.random.default_rng(0), given["T_world_mesh"]
    )  # fmt: skip
