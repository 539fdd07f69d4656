"""Depth sensors by name: what their infrared cameras are and how far they measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataengine.errors import SensorError, unknown_name
from dataengine.geometry.camera import intrinsics
from dataengine.sensor.rig import StereoRig


@dataclass(frozen=True)
class SensorPreset:
    """One real depth sensor.

    native_*: its depth or infrared image. native_focal_px: of that image. baseline_m: between the eyes (stereo) or camera
    and projector (structured light), 0 for time of flight. min/max_depth_m: working range.
    """

    name: str
    principle: Literal["active_stereo", "structured_light", "time_of_flight"]
    native_width: int
    native_height: int
    native_focal_px: float
    baseline_m: float
    projector_x_m: float
    min_depth_m: float
    max_depth_m: float

    @property
    def native_K(self) -> NDArray[np.float64]:
        """K (3, 3) with the principal point in the image centre."""
        f = self.native_focal_px
        return intrinsics(f, f, (self.native_width - 1) / 2, (self.native_height - 1) / 2)


PRESETS: dict[str, SensorPreset] = {
    preset.name: preset
    for preset in (
        # Focal 924 px is a typical factory calibration at 1280 x 720 (data sheet: 65 deg ± 2 deg, i.e. about 1000 px).
        SensorPreset("d415", "active_stereo", 1280, 720, 924.0, 0.055, 0.029, 0.4, 10.0),
        # 430.14 px at 848 x 480 and 50.15 mm (SAPIEN's calibration), scaled to 1280 x 720.
        SensorPreset("d435", "active_stereo", 1280, 720, 649.3, 0.05015, 0.0265, 0.28, 10.0),
        # NFOV unbinned mode.
        SensorPreset("azure_kinect", "time_of_flight", 640, 576, 504.0, 0.0, 0.0, 0.25, 5.5),
        SensorPreset("kinect_v1", "structured_light", 640, 480, 585.0, 0.075, 0.075, 0.5, 5.0),
    )
}


def sensor_preset(name: str) -> SensorPreset:
    """The preset of that name, or a SensorError that lists them."""
    if name not in PRESETS:
        raise SensorError(unknown_name("depth sensor", name, PRESETS))
    return PRESETS[name]


def stereo_rig(name: str, K: ArrayLike, width: int, height: int, native_scale: int = 2) -> StereoRig:
    """Rig of a named active-stereo sensor behind an output camera (K, width, height): its baseline and projector."""
    preset = sensor_preset(name)
    if preset.principle != "active_stereo":
        stereo = ", ".join(p.name for p in PRESETS.values() if p.principle == "active_stereo")
        raise SensorError(f"depth sensor '{name}' is {preset.principle.replace('_', ' ')}, it has no stereo rig; use one of {stereo}")
    return StereoRig(np.asarray(K, np.float64), width, height, preset.baseline_m, preset.projector_x_m, native_scale)
