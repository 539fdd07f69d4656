"""SE(3) against scipy's rotations and the group axioms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dataengine.geometry import se3

angles = st.floats(-np.pi, np.pi)
vectors = st.tuples(*[st.floats(-10, 10)] * 3)


def pose(rotvec, t):
    return se3.make(Rotation.from_rotvec(rotvec).as_matrix(), t)


@given(vectors, vectors, vectors, vectors)
def test_inverse_and_composition_are_those_of_a_group(r1, t1, r2, t2):
    a, b = pose(r1, t1), pose(r2, t2)
    np.testing.assert_allclose(a @ se3.inverse(a), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(se3.inverse(a @ b), se3.inverse(b) @ se3.inverse(a), atol=1e-10)
    np.testing.assert_allclose(se3.inverse(a), np.linalg.inv(a), atol=1e-10)


@given(vectors, angles)
def test_axis_angle_equals_scipy(axis, angle):
    n = np.linalg.norm(axis)
    unit = np.array(axis) / n if n > 1e-3 else np.array([0.0, 0.0, 1.0])
    np.testing.assert_allclose(se3.rotation_from_axis_angle(unit, angle), Rotation.from_rotvec(unit * angle).as_matrix(), atol=1e-12)


@given(st.tuples(angles, angles, angles))
def test_rpy_is_fixed_axis_xyz(rpy):
    np.testing.assert_allclose(se3.rotation_from_rpy(rpy), Rotation.from_euler("xyz", rpy).as_matrix(), atol=1e-12)


@given(st.lists(vectors, min_size=1, max_size=4))
def test_quaternions_round_trip_and_equal_scipy(rotvecs):
    R = Rotation.from_rotvec(rotvecs)
    q = se3.quaternion_wxyz(R.as_matrix())
    np.testing.assert_allclose(se3.rotation_from_quaternion(q), R.as_matrix(), atol=1e-12)
    theirs = np.roll(R.as_quat(), 1, axis=-1)
    np.testing.assert_allclose(np.abs((q * theirs).sum(-1)), 1.0, atol=1e-12)
    assert (q[:, 0] >= 0).all()


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_quaternion_of_half_turns(axis):
    q = se3.quaternion_wxyz(se3.rotation_from_axis_angle(np.array(axis, float), np.pi))
    np.testing.assert_allclose(np.abs(q), [0, *axis], atol=1e-8)


@given(vectors, vectors)
def test_look_at_puts_the_target_on_the_optical_axis(eye, target):
    eye, target = np.array(eye), np.array(target)
    direction = target - eye
    if np.linalg.norm(np.cross(direction, (0, 0, 1))) < 1e-2:
        return
    T = se3.look_at(eye, target)
    assert se3.is_rigid(T)
    seen = se3.transform(se3.inverse(T), target[None])[0]
    np.testing.assert_allclose(seen, [0, 0, np.linalg.norm(direction)], atol=1e-8)
    assert T[2, 1] <= 1e-9, "image y must point down in the world"


def test_look_at_straight_down_is_refused():
    with pytest.raises(ValueError, match="parallel"):
        se3.look_at((0, 0, 1), (0, 0, 0))


@pytest.mark.parametrize(
    "spoil", [lambda T: T.__setitem__((0, 0), 1.1), lambda T: T.__setitem__((3, 0), 0.1), lambda T: T.__setitem__((0, 3), np.nan)]
)
def test_is_rigid_notices(spoil):
    T = np.eye(4)
    assert se3.is_rigid(T)
    spoil(T)
    assert not se3.is_rigid(T)


def test_a_mirror_is_not_rigid():
    assert not se3.is_rigid(np.diag([1.0, 1.0, -1.0, 1.0]))
