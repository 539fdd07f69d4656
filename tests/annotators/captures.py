"""Small captures on disk, drawn with numpy: what the tests of the annotator's two ends are fed with."""

from pathlib import Path

import cv2
import numpy as np
import yaml

SIZE = (96, 64)
K = np.array([[90.0, 0, 47.5], [0, 90.0, 31.5], [0, 0, 1]])


def picture(rng, size=SIZE):
    """(H,W,3) uint8 with detail at several scales."""
    w, h = size
    layers = [cv2.resize(rng.normal(size=(max(h // s, 2), max(w // s, 2), 3)), (w, h), interpolation=cv2.INTER_CUBIC) for s in (1, 3, 8)]
    return np.clip(128 + 22 * sum(layers), 0, 255).astype(np.uint8)


def write_capture(folder: Path, frames: int = 8, **changes) -> Path:
    """A folder with rgb/, depth/ (mm), masks/, K.txt, joints.csv of a Panda and capture.yaml; `changes` go into the YAML (None removes)."""
    rng = np.random.default_rng(3)
    for name in ("rgb", "depth", "masks"):
        (folder / name).mkdir(parents=True)
    for f in range(frames):
        mask = np.zeros(SIZE[::-1], np.uint8)
        mask[10:50, 30:50] = 255
        cv2.imwrite(str(folder / "rgb" / f"{f:06d}.png"), picture(rng)[..., ::-1])
        cv2.imwrite(str(folder / "depth" / f"{f:06d}.png"), np.full(SIZE[::-1], 1200 + f, np.uint16))
        cv2.imwrite(str(folder / "masks" / f"{f:06d}.png"), mask)
    np.savetxt(folder / "K.txt", K)
    q = [0.1, -0.5, 0.2, -2.0, 0.3, 1.8, 0.4, 0.02]
    names = [*(f"panda_joint{i}" for i in range(1, 8)), "panda_finger_joint1"]
    rows = [",".join(["time", *names])] + [",".join(map(str, [0.05 * k, *np.add(q, 0.001 * k)])) for k in range(20)]
    (folder / "joints.csv").write_text("\n".join(rows) + "\n")
    spec = {
        "name": "small", "images": "rgb", "depth": {"path": "depth"}, "masks": {"path": "masks"}, "intrinsics": {"file": "K.txt"},
        "robot": "panda", "joints": {"path": "joints.csv"}, "fps": 10.0, **changes,
    }  # fmt: skip
    path = folder / "capture.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in spec.items() if v is not None}, sort_keys=False))
    return path
