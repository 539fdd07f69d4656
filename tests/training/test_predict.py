"""Prediction on files: an estimator that knows the truth stands in for a trained one."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dataengine.errors import DataEngineError
from dataengine.record.video import Video
from dataengine.robot.catalogue import load_robot
from dataengine.robot.keypoints import keypoint_set
from dataengine.view.movie import write_mp4
from dataengine.view.skeleton import skeleton_edges
from tests.store.synthetic import new_dataset
from training import predict
from training.errors import TrainingError
from training.evaluate import evaluate
from training.kinematics import KeypointChain
from training.predictor import FOUND, NO_ROBOT, Estimate
from training.truth import truth_of_dataset

K = np.array([[100.0, 0, 79.5], [0, 100.0, 47.5], [0, 0, 1]])


@pytest.fixture(scope="module")
def chain() -> KeypointChain:
    return KeypointChain.from_model(load_robot("panda"), "panda15")


@dataclass
class Knowing:
    """Answers with given joints and poses, one after the other."""

    chain: KeypointChain
    joints: list[Any]
    poses: list[Any]
    lost: tuple[int, ...] = ()
    given: list[Any] = field(default_factory=list)

    def __call__(self, image: np.ndarray, camera: np.ndarray, last: Estimate | None = None) -> Estimate:
        number = len(self.given)
        self.given.append(last)
        n, d, found = len(self.chain), self.chain.dof, number not in self.lost
        T = np.asarray(self.poses[number])
        X = self.chain.forward_one(self.joints[number]) @ T[:3, :3].T + T[:3, 3]
        px = (X @ camera.T)[:, :2] / X[:, 2:]
        nan = 1.0 if found else np.nan
        return Estimate(
            FOUND if found else NO_ROBOT, 0.9, nan * self.joints[number], nan * T, nan * X, px, nan * np.eye(d + 6),
            nan * np.tile(np.eye(3), (n, 1, 1)),
            np.tile(np.eye(2), (n, 1, 1)), np.ones(n), np.ones(n), nan * px, "search" if found else "", {"detect": 0.01},
        )  # fmt: skip


def standing(chain: KeypointChain, frames: int, lost: tuple[int, ...] = ()) -> Knowing:
    T = np.eye(4)
    T[:3] = [[0, -1, 0, 0], [0, 0, -1, 0.4], [1, 0, 0, 1.6]]
    return Knowing(chain, [0.5 * (chain.lower + chain.upper)] * frames, [T] * frames, lost)


def test_names_for_drawing_join_the_same_points_as_the_datasets(chain: KeypointChain) -> None:
    points = keypoint_set(load_robot("panda"), "panda15")
    edges = skeleton_edges(predict.drawing_names(chain))
    chainlinks = {"panda_link0", "panda_link2", "panda_link3", "panda_link4", "panda_link6", "panda_link7", "panda_hand"}
    trunk = {(points.names[a], points.names[b]) for a, b in edges if {points.names[a], points.names[b]} <= chainlinks}
    assert len(edges) == 14 and ("panda_link0", "panda_link2") in trunk and ("panda_link7", "panda_hand") in trunk and len(trunk) == 6


def test_image(chain: KeypointChain, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), np.full((96, 160, 3), 90, np.uint8))
    predict.predict_image(standing(chain, 1), tmp_path / "photo.png", predict.Camera(K), tmp_path / "out")  # type: ignore[arg-type]
    told = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert told["status"] == "found" and list(told["joints_rad"]) == list(chain.joint_names) and np.shape(told["T_cam_base"]) == (4, 4)
    drawn = cv2.imread(str(tmp_path / "out" / "photo.png"))
    assert drawn.shape == (96, 160, 3) and (drawn != 90).any(-1).sum() > 50
    lost = predict.predict_image(standing(chain, 1, (0,)), tmp_path / "photo.png", predict.Camera(K), tmp_path / "none")  # type: ignore[arg-type]
    told = json.loads((tmp_path / "none" / "photo.json").read_text())
    assert lost.status == told["status"] == "no robot in view" and told["joints_rad"]["panda_joint1"] is None
    assert (cv2.imread(str(tmp_path / "none" / "photo.png")) == 90).all()


def test_video_is_followed(chain: KeypointChain, tmp_path: Path) -> None:
    write_mp4(tmp_path / "clip.mp4", [np.full((96, 160, 3), 40 * i, np.uint8) for i in range(5)], 10.0)
    estimator = standing(chain, 5, (2,))
    found = predict.predict_video(estimator, tmp_path / "clip.mp4", predict.Camera(fov_deg=70.0), tmp_path / "out")  # type: ignore[arg-type]
    assert [e.status for e in found] == ["found", "found", "no robot in view", "found", "found"]
    assert estimator.given == [None, *found[:-1]]
    frames, rate = predict.read_video(tmp_path / "out" / "clip.mp4")
    assert len(list(frames)) == 5 and rate == 10.0
    lines = [json.loads(line) for line in (tmp_path / "out" / "clip.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(5)) and lines[2]["T_cam_base"][0][0] is None


def test_dataset_judged_by_the_evaluator(chain: KeypointChain, tiny_video: Video, tmp_path: Path) -> None:
    dataset = new_dataset(tmp_path / "d", "a" * 64)
    dataset.add(0, tiny_video, "train")
    dataset.add(1, tiny_video, "train")
    dataset.write_manifest()
    truth = truth_of_dataset(dataset.path, None, chain.keypoint_names, "panda15")
    columns = [truth.joint_names.index(n) for n in chain.joint_names]
    estimator = Knowing(chain, list(truth.joints[:, columns]), list(truth.T_cam_base))
    seen, estimates, timed = predict.predict_dataset(estimator, str(dataset.path), online=True)  # type: ignore[arg-type]
    report = evaluate(seen, estimates).report
    assert report.overall.auc == pytest.approx(1.0, abs=1e-3) and report.overall.failures == 0
    assert len(timed.wall_s) == len(truth) == 4
    # a video begins anew
    assert [last is None for last in estimator.given] == [True, False, True, False]
    images = list(predict.dataset_images(truth))
    assert len(images) == 4 and np.array_equal(images[1], tiny_video.images["rgb"][1])


def test_cameras(tmp_path: Path) -> None:
    assert np.array_equal(predict.camera_of("100,100,79.5,47.5", None).matrix(160, 96), K)
    for content in ({"K": K.tolist()}, K.tolist()):
        (tmp_path / "k.json").write_text(json.dumps(content))
        assert np.array_equal(predict.camera_of(str(tmp_path / "k.json"), None).matrix(160, 96), K)
    wide = predict.camera_of(None, 90.0).matrix(640, 480)
    assert wide[0, 0] == pytest.approx(320.0) and wide[0, 2] == 319.5
    for text in ("1,2,3", "a.json", "x"):
        with pytest.raises(TrainingError, match="give fx,fy,cx,cy in pixels"):
            predict.camera_of(text, None)
    with pytest.raises(TrainingError, match="the camera is not known: give --camera"):
        predict.camera_of(None, None).matrix(10, 10)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG nothing")
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    for call, message in (
        (lambda: predict.read_image(tmp_path / "a.png"), "a.png: it cannot be decoded"),
        (lambda: predict.read_image(tmp_path / "b.png"), "b.png: there is no such file"),
        (lambda: predict.read_video(tmp_path / "a.mp4"), "a.mp4 cannot be read"),
        (lambda: predict.read_video(tmp_path / "b.mp4"), "b.mp4 cannot be read"),
    ):
        with pytest.raises(DataEngineError, match=message):
            call()
