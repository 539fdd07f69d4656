"""The table of modalities and the frame row."""

import numpy as np
import pytest

from dataengine.errors import RecordError
from dataengine.record import frame_table, modalities
from dataengine.record.video import Names, Video

NAMES = Names(("j1",), ("base", "tip"), ("k",), (1,), ((0.0, 0.0, 0.0),), ())


def video(images):
    rows = np.zeros(2, frame_table.frame_dtype(1, 2, 1, 0))
    return Video("rendered", NAMES, images, rows, {}, {})


def test_names_are_unique_and_fill_fits_the_dtype():
    assert len(set(modalities.NAMES)) == len(modalities.TABLE)
    for m in modalities.TABLE:
        assert np.dtype(m.dtype).type(m.fill) == m.fill


def test_all_resolves_to_the_table_and_order_is_the_tables():
    assert modalities.resolve(("all",)) == modalities.NAMES
    assert modalities.resolve(("depth_z", "rgb")) == ("rgb", "depth_z")


def test_unknown_modality_is_named_with_the_nearest():
    with pytest.raises(RecordError, match=r"unknown modality 'depht_z' \(did you mean 'depth_z'\?\); available: rgb"):
        modalities.modality("depht_z")


def test_depth_quantum_is_exact_in_float32():
    """Multiples of the quantum up to 10 m are float32 numbers: rounding loses nothing afterwards."""
    k = np.arange(0, int(10 / modalities.DEPTH_QUANTUM_M), 997)
    as32 = (k * modalities.DEPTH_QUANTUM_M).astype(np.float32)
    np.testing.assert_array_equal(as32.astype(float) / modalities.DEPTH_QUANTUM_M, k)


@pytest.mark.parametrize("with_covariance", [False, True])
def test_frame_dtype_survives_json(with_covariance):
    d = frame_table.frame_dtype(8, 12, 15, 4, with_covariance)
    assert frame_table.from_description(frame_table.describe(d)) == d
    assert ("base_covariance" in d.names) is with_covariance
    assert d["T_cam_link"].shape == (12, 4, 4) and d["T_cam_object"].shape == (4, 4, 4)


def test_video_checks_dtype_and_shape():
    good = {"rgb": np.zeros((2, 4, 6, 3), np.uint8), "depth_z": np.zeros((2, 4, 6), np.float32)}
    assert video(good).check().size == (4, 6)
    with pytest.raises(RecordError, match="depth_z: got float64"):
        video(good | {"depth_z": np.zeros((2, 4, 6))}).check()
    with pytest.raises(RecordError, match="mask_link"):
        video(good | {"mask_link": np.zeros((2, 4, 7), np.uint8)}).check()


def test_markdown_table_has_a_row_per_modality():
    assert modalities.markdown_table().count("\n") == len(modalities.TABLE) + 2
