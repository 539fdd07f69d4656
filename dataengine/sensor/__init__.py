"""Depth sensors: what a real camera would measure of a scene whose true depth is known.

`ir` renders the infrared pair of an active-stereo camera, `stereo` matches it, `kinect_v1` and
`azure_tof` turn true depth into structured-light and time-of-flight measurements, `presets` names
the sensors, `quality` scores a measurement. Nothing is imported here: numba and OpenCV are heavy.
"""
