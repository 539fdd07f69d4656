"""The list of formats: name → where its two functions are, what it is. Loaded when asked for: h5py and OpenEXR are optional."""

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dataengine.convert.disk import ConvertError
from dataengine.errors import unknown_name
from dataengine.record.video import Video


class Exporter(Protocol):
    def __call__(self, videos: Iterable[Video], out: Path) -> int:
        """Write videos into a new folder; returns how many."""
        ...


class Importer(Protocol):
    def __call__(self, folder: Path, frames_per_video: int | None = None) -> Iterator[Video]:
        """Read videos one at a time, in an order that depends on the folder's content alone."""
        ...


@dataclass(frozen=True)
class Format:
    """`exporter` and `importer` are `module:function`; without the modalities in `needs` an export is refused (of real videos:
    depth_sim for depth_z). A format that can only be written has the importer "".
    """

    description: str
    exporter: str
    importer: str
    needs: tuple[str, ...]

    def export_function(self) -> Exporter:
        return _load(self.exporter)

    def import_function(self) -> Importer:
        if not self.importer:
            raise ConvertError(f"this format can only be exported to, not imported: {self.description}")
        return _load(self.importer)


def _format(description: str, exporter: str, importer: str, *needs: str) -> Format:
    return Format(description, f"dataengine.convert.{exporter}", f"dataengine.convert.{importer}" if importer else "", needs)


FORMATS: dict[str, Format] = {
    "simrgbd": _format(
        "SimRGBD-Franka (RoboKeyGen), synthetic and real layout",
        "simrgbd:export_simrgbd", "simrgbd_import:import_simrgbd", "rgb", "depth_z", "mask_link",
    ),
    "ndds": _format("NDDS as DREAM uses it: robot keypoints, pose and joints", "ndds:export_ndds", "ndds:import_ndds", "rgb"),
    "bop": _format(
        "BOP scene-wise: object poses, masks, models",
        "bop:export_bop", "bop:import_bop", "rgb", "depth_z", "mask_object", "amodal_objects",
    ),
    "coco": _format("COCO keypoints and instance masks", "coco:export_coco", "coco:import_coco", "rgb"),
    "hdf5": _format("BlenderProc's HDF5 containers; keeps everything", "hdf5:export_hdf5", "hdf5:import_hdf5"),
    "folders": _format("plain folders of PNG, EXR and JSON; keeps everything", "folders:export_folders", "folders:import_folders"),
    "capture": _format("what a person with a camera would have recorded, with the truth beside it", "captures:export_captures", "", "rgb"),
    "colmap": _format("COLMAP text models: cameras, poses, images; the keypoints as points", "colmap:export_colmap", "", "rgb"),
    "nocs": _format("NOCS: REAL275 and CAMERA25", "nocs:export_nocs", "nocs_import:import_nocs", "rgb", "depth_z", "mask_object", "nocs"),
    "sope": _format("Omni6DPose: SOPE and ROPE", "sope:export_sope", "sope:import_sope", "rgb", "depth_z", "mask_object", "nocs"),
}  # fmt: skip


def get_format(name: str) -> Format:
    """Look one up. Raises ConvertError naming the known ones."""
    if name not in FORMATS:
        raise ConvertError(unknown_name("format", name, FORMATS))
    return FORMATS[name]


def _load(where: str) -> Any:
    module, function = where.split(":")
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ConvertError(f"this format needs the package '{error.name}': install dataengine with the extra 'convert'") from None
