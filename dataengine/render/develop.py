"""From scene-linear light to an 8-bit picture: exposure, sensor noise, sRGB."""

import numpy as np
from numpy.typing import NDArray

from dataengine.scene.spec import ImageEffects


def srgb_from_linear(linear: NDArray) -> NDArray[np.float32]:
    """sRGB transfer function (IEC 61966-2-1) on values clipped to 0…1."""
    x = np.clip(linear, 0.0, 1.0).astype(np.float32, copy=False)
    return np.where(x <= np.float32(0.0031308), np.float32(12.92) * x, np.float32(1.055) * x ** np.float32(1 / 2.4) - np.float32(0.055))


def develop(rgb_linear: NDArray[np.float32], effects: ImageEffects, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(H,W,3) scene-linear light → 8-bit sRGB.

    Noise is added to the linear signal, where the sensor adds it: variance = noise² + shot_noise²·signal.
    """
    signal = rgb_linear * np.float32(2.0**effects.exposure_ev)
    if effects.noise > 0 or effects.shot_noise > 0:
        variance = effects.noise**2 + effects.shot_noise**2 * np.clip(signal, 0.0, 1.0)
        signal = signal + np.sqrt(variance, dtype=np.float32) * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.rint(srgb_from_linear(signal) * 255).astype(np.uint8)
