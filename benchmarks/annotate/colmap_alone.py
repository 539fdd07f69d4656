"""The baseline beside our camera solver: COLMAP's own sequential pipeline on every frame, known intrinsics held, nothing else.

`python -m benchmarks.annotate.colmap_alone FOLDER` with FOLDER/images and FOLDER/camera.json; leaves FOLDER/poses.npz.
A process of its own because COLMAP may abort.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pycolmap

from annotators.sfm_colmap import as_matrix, camera_parameters, largest, quiet
from dataengine.geometry import se3


def main() -> int:
    """Features, sequential matches (overlap 10), incremental mapper; poses of the largest model by frame number."""
    folder = Path(sys.argv[1])
    quiet()
    camera = json.loads((folder / "camera.json").read_text())
    database, images = folder / "database.db", folder / "images"
    pycolmap.Database.open(database).close()
    model, parameters = camera_parameters(np.asarray(camera["K"], float), None)
    reader = pycolmap.ImageReaderOptions(camera_model=model, camera_params=parameters)
    extraction = pycolmap.FeatureExtractionOptions(num_threads=1)
    pycolmap.extract_features(database, images, [], pycolmap.CameraMode.SINGLE, reader, extraction, pycolmap.Device.cpu)
    pycolmap.match_sequential(database, pycolmap.FeatureMatchingOptions(num_threads=1), device=pycolmap.Device.cpu)
    options = pycolmap.IncrementalPipelineOptions(num_threads=1, ba_refine_focal_length=False, ba_refine_extra_params=False)
    best = largest(list(pycolmap.incremental_mapping(database, images, folder, options).values()))
    frames, poses = [], []
    for image in [] if best is None else [best.image(number) for number in best.reg_image_ids()]:
        frames.append(int(Path(image.name).stem))
        poses.append(se3.inverse(as_matrix(image.cam_from_world())))
    np.savez(folder / "poses.npz", frames=np.array(frames, int), T_world_cam=np.array(poses, float).reshape(-1, 4, 4))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
