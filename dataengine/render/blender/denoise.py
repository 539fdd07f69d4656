"""Intel Open Image Denoise, the library that bpy ships and Cycles uses, called directly.

Cycles denoises each frame by itself and by a fixed recipe. Called here, the denoiser can take what we know better: samples
gathered from several frames, cleaner auxiliary images, and pixels that need no denoising at all.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dataengine.errors import RenderError
from dataengine.render.blender.libraries import bpy_library

Image = NDArray[np.float32]
Quality = Literal["FAST", "BALANCED", "HIGH"]

_CPU, _FLOAT3 = 1, 3
_QUALITY = {"FAST": 4, "BALANCED": 5, "HIGH": 6}
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "oidnNewDevice": (ctypes.c_void_p, (ctypes.c_int,)),
    "oidnSetDeviceInt": (None, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)),
    "oidnSetDeviceBool": (None, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool)),
    "oidnCommitDevice": (None, (ctypes.c_void_p,)),
    "oidnGetDeviceError": (ctypes.c_int, (ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p))),
    "oidnNewFilter": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p)),
    "oidnSetSharedFilterImage": (None, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, *(ctypes.c_size_t,) * 5)),
    "oidnSetFilterBool": (None, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool)),
    "oidnSetFilterInt": (None, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)),
    "oidnCommitFilter": (None, (ctypes.c_void_p,)),
    "oidnExecuteFilter": (None, (ctypes.c_void_p,)),
    "oidnReleaseFilter": (None, (ctypes.c_void_p,)),
    "oidnReleaseDevice": (None, (ctypes.c_void_p,)),
}


class Denoiser:
    """One single-threaded denoising device, a context manager. Make it after a fork, not before."""

    def __init__(self) -> None:
        self._library = _library()
        self._device = self._library.oidnNewDevice(_CPU)
        self._library.oidnSetDeviceInt(self._device, b"numThreads", 1)
        self._library.oidnSetDeviceBool(self._device, b"setAffinity", False)
        self._library.oidnCommitDevice(self._device)
        self._check()

    def __enter__(self) -> Denoiser:
        return self

    def __exit__(self, *error: object) -> None:
        self._library.oidnReleaseDevice(self._device)

    def color(self, noisy: Image, albedo: Image, normal: Image, quality: Quality, clean_auxiliaries: bool) -> Image:
        """Denoise scene-linear light (H,W,3) guided by albedo and normals (H,W,3).

        `clean_auxiliaries`: trust every detail of albedo and normals; else they are taken as noisy too.
        """
        inputs = {"color": noisy, "albedo": albedo, "normal": normal}
        return self._run(inputs, quality, hdr=True, cleanAux=clean_auxiliaries)

    def auxiliary(self, name: Literal["albedo", "normal"], image: Image, quality: Quality) -> Image:
        """Denoise an auxiliary image by itself."""
        return self._run({name: image}, quality, hdr=False, cleanAux=False)

    def _run(self, inputs: dict[str, Image], quality: Quality, **flags: bool) -> Image:
        library, images = self._library, {k: np.ascontiguousarray(a, np.float32) for k, a in inputs.items()}
        shape = next(iter(images.values())).shape
        images["output"] = np.empty(shape, np.float32)
        job = library.oidnNewFilter(self._device, b"RT")
        for name, image in images.items():
            if image.shape != shape or shape[2:] != (3,):
                raise RenderError(f"denoiser: {name} has shape {image.shape}, expected {(*shape[:2], 3)}")
            library.oidnSetSharedFilterImage(job, name.encode(), image.ctypes.data, _FLOAT3, shape[1], shape[0], 0, 0, 0)
        for name, value in flags.items():
            library.oidnSetFilterBool(job, name.encode(), value)
        library.oidnSetFilterInt(job, b"quality", _QUALITY[quality])
        library.oidnCommitFilter(job)
        library.oidnExecuteFilter(job)
        library.oidnReleaseFilter(job)
        self._check()
        return images["output"]

    def _check(self) -> None:
        message = ctypes.c_char_p()
        if self._library.oidnGetDeviceError(self._device, ctypes.byref(message)) != 0:
            raise RenderError(f"the denoiser failed: {(message.value or b'no reason given').decode(errors='replace')}")


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    found = sorted((bpy_library().parent / "lib").glob("libOpenImageDenoise.so.*"))
    if not found:
        raise RenderError(f"no Open Image Denoise library beside {Path(bpy_library()).parent}; reinstall bpy")
    library = ctypes.CDLL(str(found[0]))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
