"""Skeletons: edges from names alone, drawing at exact places."""

import numpy as np
import pytest

from dataengine.record.video import Names
from dataengine.robot.catalogue import load_robot
from dataengine.view.skeleton import draw_keypoints, is_stub, keypoint_colours, skeleton_edges, state_counts


def names(*points: tuple[str, tuple[float, float, float]], robot: str = "panda") -> Names:
    model = load_robot(robot)
    links = tuple(link for link, _ in points)
    return Names(model.actuated, model.links, links, tuple(model.link_index(n) for n in links), tuple(o for _, o in points), ())


ORIGIN = (0.0, 0.0, 0.0)
DREAM7 = [(f"panda_{n}", ORIGIN) for n in ("link0", "link2", "link3", "link4", "link6", "link7", "hand")]


def test_dream7_is_a_chain_from_base_to_hand():
    assert skeleton_edges(names(*DREAM7)) == ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6))


def test_the_chain_does_not_depend_on_the_order_of_the_keypoints():
    shuffled = [DREAM7[i] for i in (3, 0, 6, 2, 5, 1, 4)]
    joined = {frozenset((shuffled[a][0], shuffled[b][0])) for a, b in skeleton_edges(names(*shuffled))}
    plain = {frozenset((DREAM7[a][0], DREAM7[b][0])) for a, b in skeleton_edges(names(*DREAM7))}
    assert joined == plain


def test_off_axis_points_hang_on_their_own_link_or_the_one_before():
    n = names(*DREAM7, ("panda_link0", (0.0, 0.07, 0.0)), ("panda_link5", (0.0, 0.09, -0.05)))
    edges = skeleton_edges(n)
    assert edges[:6] == ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6))
    assert edges[6:] == ((0, 7), (3, 8))  # link5 has no point on its axis: link4's takes it
    assert [is_stub(n, e) for e in edges] == [False] * 6 + [True] * 2


def test_fingers_fork_from_the_hand():
    n = names(*DREAM7, ("panda_leftfinger", ORIGIN), ("panda_rightfinger", ORIGIN))
    assert skeleton_edges(n)[-2:] == ((6, 7), (6, 8))


def test_every_keypoint_is_joined_when_none_lies_on_an_axis():
    n = names(*((f"panda_link{i}", (0.05, 0.0, 0.01 * i)) for i in range(6)))
    assert {k for e in skeleton_edges(n) for k in e} == set(range(6))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_keypoints_have_no_edges(count):
    assert skeleton_edges(names(*DREAM7[:count])) == ()
    assert keypoint_colours(names(*DREAM7[:count])).shape == (count, 3)


def drawn(points, states, scale=1.0, size=(120, 200), **more) -> np.ndarray:
    canvas = np.full((*size, 3), 100, np.uint8)
    n = names(*DREAM7[: len(points)])
    return draw_keypoints(canvas, points, states, n, scale, **more).astype(int) - 100


def test_a_dot_is_centred_on_its_pixel_at_every_scale():
    for scale, size in ((1.0, (120, 200)), (2.0, (240, 400))):
        change = np.abs(drawn([(60.25, 41.5)], [2], scale, size)).sum(-1)
        v, u = np.indices(change.shape)
        centre = np.array([(u * change).sum(), (v * change).sum()]) / change.sum()
        assert (centre + 0.5) / scale - 0.5 == pytest.approx((60.25, 41.5), abs=0.1)


def test_seen_is_filled_hidden_is_hollow_outside_is_absent():
    tone = keypoint_colours(names(DREAM7[0]))[0].astype(int)
    seen, hidden = drawn([(50.0, 50.0)], [2])[50, 50] + 100, drawn([(50.0, 50.0)], [1])[50, 50] + 100
    assert np.abs(seen - tone).max() <= 2
    assert hidden.sum() < 0.6 * seen.sum()
    assert not drawn([(50.0, 50.0)], [0]).any()


def test_a_bone_to_a_point_outside_is_clipped_at_the_border_and_nan_is_skipped():
    change = drawn([(20.0, 60.0), (500.0, 60.0)], [2, 0])
    assert change[60, 199].any() and not change[20].any()
    assert not drawn([(20.0, 60.0), (np.nan, np.nan)], [0, 0]).any()


def test_labels_write_something_beside_the_dot():
    plain, labelled = drawn([(50.0, 50.0)], [2]), drawn([(50.0, 50.0)], [2], labels=True)
    assert (plain != labelled).any() and (plain == labelled)[:, :45].all()


def test_the_input_picture_is_not_changed():
    canvas = np.zeros((60, 60, 3), np.uint8)
    draw_keypoints(canvas, [(30.0, 30.0)], [2], names(DREAM7[0]))
    assert not canvas.any()


def test_counts_of_states():
    assert state_counts([2, 2, 1, 0, 2]) == {"visible": 3, "occluded": 1, "outside": 1}
