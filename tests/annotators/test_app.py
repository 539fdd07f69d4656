"""What the annotation app computes; `tests/browser` drives it in a real browser."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest

from annotators.app.keys import KEYS, help_table
from annotators.app.live import Answer, LiveSolver
from annotators.app.main import App
from annotators.app.panel import advice
from annotators.app.picture import LOUPE_PX, LOUPE_SCALE, RobotPicture, loupe
from annotators.app.suspicion import rank_frames, residuals_px, spread_order
from annotators.types import Click
from dataengine.errors import DataEngineError
from dataengine.robot.catalogue import load_robot
from tests.annotators.staged import Hint, Staged


@pytest.fixture(scope="module")
def staged(tiny_rendered) -> Staged:
    return Staged(tiny_rendered.video)


@pytest.fixture(scope="module")
def panda() -> RobotPicture:
    return RobotPicture(load_robot("panda"))


def clicks_of(staged: Staged, *frames: int) -> tuple[Click, ...]:
    return tuple(Click(f, name, uv) for f in frames for name, uv in staged.pixels(f).items() if name != "flange")


def test_no_two_actions_share_a_key_and_each_is_a_method_of_the_app():
    assert max(Counter((key.key, key.modifier) for key in KEYS).values()) == 1
    for key in KEYS:
        assert callable(getattr(App, key.action)), key
        assert f"`{key.shown}`" in help_table() or key.action == "pick_landmark"


def test_expected_keys_are_bound():
    bound = {(key.key, key.modifier): key.action for key in KEYS}
    assert bound["F", None] == bound["arrowright", None] == bound["D", None] == "step"
    assert (bound["N", None], bound["delete", None], bound["space", None]) == ("next_landmark", "delete", "play")
    assert (bound["Z", "cmd/ctrl"], bound["Z", "cmd/ctrl+shift"], bound["enter", None]) == ("undo", "redo", "next_suspicious")


@pytest.mark.parametrize("count", [1, 2, 7, 64, 99])
def test_spread_order_visits_all_and_starts_far_apart(count):
    order = spread_order(count)
    assert sorted(order) == list(range(count))
    if count >= 7:
        first = sorted(order[:4])
        assert min(np.diff(first)) >= count // 8


def test_refused_frames_lead_the_ranking_then_large_residuals(staged):
    clicks = clicks_of(staged, 0, 2)
    moved = tuple(Click(c.frame, c.landmark, (c.uv_px[0] + 9, c.uv_px[1])) if c.frame == 2 else c for c in clicks)
    ranking = rank_frames(8, moved, staged.solve(moved), moved)
    assert [state.frame for state in ranking[:2]] == [5, 2]
    assert ranking[0].reason == "blur" and "blur" in ranking[0].label
    assert ranking[1].worst_px == pytest.approx(9)
    assert ranking[1].clicks == len(moved) // 2
    assert sorted(state.frame for state in ranking) == list(range(8))


def test_before_the_first_solve_clicked_frames_come_first(staged):
    ranking = rank_frames(8, (Click(3, "base", (1, 1)),), None, ())
    assert ranking[0].frame == 3 and ranking[1].frame == 0
    assert not np.isfinite(ranking[0].sd_m)


def test_residuals_belong_to_the_clicks_that_were_solved(staged):
    clicks = clicks_of(staged, 1)
    solution = staged.solve(clicks)
    assert residuals_px(solution, clicks)[1, "elbow"] == pytest.approx((0, 0), abs=1e-9)
    unposed = solution.T_world_cam.copy()
    unposed[4] = np.nan
    solution = staged.solve(clicks)
    object.__setattr__(solution, "T_world_cam", unposed)
    more = (*clicks, Click(4, "elbow", (5.0, 5.0)))
    found = residuals_px(solution, more)
    assert set(found) == {(1, c.landmark) for c in clicks}
    assert residuals_px(None, clicks) == {}


def test_the_overlay_covers_exactly_the_robot(staged, panda):
    row, mask = staged.row(0), staged.video.images["amodal_robot"][0] > 0
    height, width = mask.shape
    drawn = panda.overlay(row["K"], (width, height), row["T_cam_base"], row["joint_position"], "solid", 0.6)
    assert drawn.shape == (2 * height, 2 * width, 4)
    covered = (drawn[..., 3] > 0).reshape(height, 2, width, 2).mean((1, 3))
    assert np.mean((covered > 0.5) == mask) > 0.995
    assert set(np.unique(drawn[..., 3])) == {0, 153}
    edges = panda.overlay(row["K"], (width, height), row["T_cam_base"], row["joint_position"], "edges", 1.0)[..., 3] > 0
    assert 0 < edges.mean() < 0.5 * (drawn[..., 3] > 0).mean()
    assert not (edges & (drawn[..., 3] == 0)).any()
    assert not panda.overlay(row["K"], (width, height), row["T_cam_base"], row["joint_position"], "off", 1.0).any()


def test_landmarks_fall_where_the_record_has_its_keypoints(staged, panda):
    row = staged.row(1)
    found = panda.landmarks_px(row["K"], row["T_cam_base"], row["joint_position"], staged.points)
    stored = dict(zip(staged.video.names.keypoints, row["keypoints_px"], strict=True))
    np.testing.assert_allclose(found[3], stored["panda_link4"], atol=1e-6)


def test_every_landmark_has_a_guide_that_marks_it(staged, panda):
    points = staged.points[::5]
    for point in points:
        guide = panda.guide(point)
        half = guide.shape[1] // 2
        for view in (guide[:, :half], guide[:, half:]):
            pink = (view == (255, 64, 160)).all(-1)
            assert pink.sum() > 50
            assert (view > 120).all(-1).sum() > 500  # the shaded robot
    assert panda.guide(points[0]) is panda.guide(points[0])


def test_the_loupe_is_centred_to_a_fraction_of_a_pixel():
    v, u = np.mgrid[0:60, 0:80].astype(np.float64)
    ramp = np.dstack([2 * u, 3 * v, np.zeros_like(u)]).astype(np.uint8)
    for at in ((40.0, 30.0), (40.4, 29.75)):
        shown = loupe(ramp, at).astype(float)
        assert shown.shape == (LOUPE_PX * LOUPE_SCALE, LOUPE_PX * LOUPE_SCALE, 3)
        middle = LOUPE_PX * LOUPE_SCALE // 2
        # five image pixels right of and below the centre, clear of the hair cross
        red, green = shown[middle + 5 * LOUPE_SCALE + 3, middle + 5 * LOUPE_SCALE + 3, :2]
        offset = 5 + 3 / LOUPE_SCALE
        assert red / 2 - at[0] == pytest.approx(offset, abs=0.5) and green / 3 - at[1] == pytest.approx(offset, abs=0.4)


def test_advice_stops_at_two_millimetres():
    assert advice(None) is None
    more, enough = advice(Hint(7, "hand", 0.0021, 0.0025)), advice(Hint(7, "hand", 0.0015, 0.002))
    assert more is not None and more[1] == "Next (G): hand in frame 7: 2.5 → 2.1 mm"
    assert enough is not None and enough[1] == "Enough: keypoints known to 2.0 mm. You may stop."


def test_the_newest_clicks_win_and_older_answers_are_never_told(staged):
    gate, begun = threading.Event(), threading.Event()
    told: list[Answer] = []
    done = threading.Event()
    solved: list[int] = []

    def solve(clicks):
        solved.append(len(clicks))
        begun.set()
        assert gate.wait(20)
        return staged.solve(clicks)

    def tell(answer):
        told.append(answer)
        if answer.suggestion is not None:
            done.set()

    live = LiveSolver(solve, staged.suggest, tell, fewest=6)
    clicks = clicks_of(staged, 0)
    live.ask(clicks[:6])
    assert begun.wait(20)
    for count in (7, 8, 9):  # while the first solve runs
        live.ask(clicks[:count])
    gate.set()
    assert done.wait(20)
    live.stop()
    assert solved == [6, 9]
    assert {len(answer.clicks) for answer in told} == {9}
    assert told[-1].suggestion == staged.suggest(clicks[:9])


def test_solver_trouble_is_one_line_and_the_next_question_is_answered(staged, caplog):
    told: list[Answer] = []
    said = threading.Semaphore(0)

    def solve(clicks):
        if len(clicks) == 7:
            raise FloatingPointError("a defect")
        return staged.solve(clicks)

    def tell(answer):
        told.append(answer)
        said.release()

    def next_answer(clicks):
        live.ask(clicks)
        assert said.acquire(timeout=20)
        return told[-1]

    live = LiveSolver(solve, lambda clicks: None, tell, fewest=6)
    clicks = clicks_of(staged, 0)
    assert next_answer(clicks[:2]).trouble == "4 more clicks until the first solve"
    wrong = (*clicks[:5], Click(0, "flange", (1, 1)))
    assert next_answer(wrong).trouble == "staged: no pose of the robot agrees with the clicks"
    assert "the solver failed (see the terminal)" in next_answer(clicks[:7]).trouble
    assert "a defect" in caplog.text
    assert next_answer(clicks[:8]).solution is not None
    live.stop()
    with pytest.raises(DataEngineError):
        staged.solve(wrong)
