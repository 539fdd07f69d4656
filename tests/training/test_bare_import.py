"""`training` on a machine that has torch, numpy and the shard codecs' wheels, and nothing else."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import training
from tests.store.synthetic import new_dataset, synthetic_video

ROOT = Path(__file__).resolve().parents[2]
CODECS = ("numcodecs", "google_crc32c", "simplejpeg")
# what torch 2.13 and numcodecs declare as their own requirements
OF_TORCH = (
    "torch",
    "torchgen",
    "typing_extensions",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
    "fsspec",
    "filelock",
    "setuptools",
)
OF_NUMCODECS = ("typing_extensions", "deprecated", "wrapt")
OURS = ("training", "dataengine")

ONLY = """
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in {allowed} or top in sys.stdlib_module_names or top.startswith("_"):
            return None
        raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Only())
"""
MODULES = sorted(m.name for m in pkgutil.walk_packages(training.__path__, "training."))
# what the evaluator is made of, and the reading of datasets
WITHOUT_TORCH = (
    "training.metrics",
    "training.truth",
    "training.slices",
    "training.evaluate",
    "dataengine.record.report",
    "dataengine.store.iterator",
)


def run_with_only(allowed: tuple[str, ...], code: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", ONLY.format(allowed=sorted(allowed)) + code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_guard_guards() -> None:
    """Else the tests below would pass whatever is imported."""
    for module in ("zarr", "pydantic", "h5py", "ray", "trimesh", "cv2", "scipy", "safetensors"):
        done = run_with_only((*OF_TORCH, *CODECS, "numpy", *OURS), f"import {module}")
        assert done.returncode == 1 and f"No module named '{module}'" in done.stderr


def test_every_module_imports_with_torch_numpy_and_codecs_alone() -> None:
    code = "import importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    done = run_with_only((*OF_TORCH, *OF_NUMCODECS, *CODECS, "numpy", *OURS), code, *MODULES)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"training.data", "training.evaluate", "training.metrics"} <= set(MODULES)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = new_dataset(tmp_path_factory.mktemp("bare") / "d")
    video = synthetic_video(0, 4, modalities=("rgb", "mask_link", "depth_sim"))
    video.frames["accepted"] = 1
    dataset.add(0, video, "train")
    dataset.write_manifest()
    return dataset.path


def test_frames_are_read_with_torch_numpy_and_codecs_alone(dataset: Path) -> None:
    code = """
from training.data import Loader
batches = list(Loader([sys.argv[1]], ("rgb", "depth_sim", "K"), 2))
assert [tuple(b["rgb"].shape) for b in batches] == [(2, 12, 16, 3)] * 2
"""
    done = run_with_only((*OF_TORCH, *OF_NUMCODECS, *CODECS, "numpy", *OURS), code, dataset)
    assert done.returncode == 0, done.stderr[-2000:]


def test_frames_are_read_and_estimates_judged_without_torch(dataset: Path, tmp_path: Path) -> None:
    code = """
import importlib
for name in sys.argv[3:]:
    importlib.import_module(name)
import numpy as np
from training.evaluate import evaluate
from training.truth import Estimates, truth_of_dataset
from dataengine.record import report
truth = truth_of_dataset(sys.argv[1])
found = evaluate(truth, Estimates("x", truth.keypoint_names, truth.keypoints_m + 0.01))
report.write(found.report, sys.argv[2])
assert "torch" not in sys.modules
"""
    done = run_with_only((*OF_NUMCODECS, *CODECS, "numpy", *OURS), code, dataset, tmp_path / "report.json", *WITHOUT_TORCH)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "report.json").stat().st_size > 1000


def test_no_function_that_numpy_2_removed() -> None:
    """numpy 2 dropped or renamed these; our numpy 1.26 would not notice."""
    gone = ("np.trapz", "np.in1d", "np.row_stack", "np.product", "np.cumproduct", "np.float_", "np.bool8", "np.Inf", "np.NaN", "np.infty")
    for file in [
        *(ROOT / "training").rglob("*.py"),
        *(ROOT / "dataengine" / "record").rglob("*.py"),
        *(ROOT / "dataengine" / "store").rglob("*.py"),
    ]:
        text = file.read_text()
        assert [name for name in gone if name + "(" in text or name + "," in text or name + ")" in text] == [], file
