"""Run by test_reproducible.py: render videos in forks of one process and print a digest per video and kind of pass.

usage: reproduce.py VIDEO… — one fork per video, in order. The process gives up address randomisation and all cores but one first.
"""

import ctypes
import hashlib
import json
import os
import sys
from pathlib import Path


def main() -> None:
    if os.environ.get("REPRODUCE_STAGE") != "2":
        fixed = ctypes.CDLL(None).personality(ctypes.c_ulong(0x0040000)) >= 0  # ADDR_NO_RANDOMIZE
        core = str(min(os.sched_getaffinity(0)))
        env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        env |= {
            "OPENBLAS_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
            "REPRODUCE_STAGE": "2",
            "REPRODUCE_FIXED": str(int(fixed)),
            "CORE": core,
        }
        os.execve(sys.executable, [sys.executable, *sys.argv], env)
    os.sched_setaffinity(0, {int(os.environ["CORE"])})
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from tests.render.blender.conftest import Toy
    from tests.render.blender.scenes import floor, look_at, material, scene, thing

    toy = Toy()
    for video in map(int, sys.argv[1:]):
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            rng = np.random.default_rng(video)
            pose = np.eye(4)
            pose[:3, 3] = *rng.uniform(-0.3, 0.3, 2), 0.1
            things = [thing(1, "torus", (0.3, 0.3, 0.1), pose, material("metal")), floor(material("wood", seed=video))]
            camera = look_at((0.7, -0.8, 0.7), (0.0, 0.0, 0.1))
            s = scene(things, [camera] * 2, toy.joints, video=video, samples_per_pixel=3, joint_position=((0.2,), (0.5,)))
            p = toy.render(s)
            labels = (p.depth_z_m, p.link_id, p.object_id)
            print(json.dumps([video, digest(*labels), digest(p.rgb_linear, p.normal_cam), int(os.environ["REPRODUCE_FIXED"])]), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(1)


def digest(*arrays) -> str:
    h = hashlib.sha256()
    for a in arrays:
        h.update(a.tobytes())
    return h.hexdigest()


if __name__ == "__main__":
    import numpy as np

    main()
