import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataengine.errors import StoreError
from dataengine.store.codecs import Decayed, Half, Window, codecs_for, parse_chain
from dataengine.store.jpeg_codec import JpegCodec, NotAJpeg, from_configuration, halved, tile_blocks

SIDES = st.integers(1, 90)


def picture(height: int, width: int, colour: bool = True, seed: int = 0, detail_px: int = 8) -> np.ndarray:
    """Smooth shapes of about `detail_px` and some noise: what JPEG is made for."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (max(2, height // detail_px), max(2, width // detail_px), 3), np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(float) + rng.normal(0, 3, (height, width, 3))
    out = image.clip(0, 255).astype(np.uint8)
    return out if colour else np.ascontiguousarray(out[..., 0])


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def decoded(codec: JpegCodec, data: bytes, image: np.ndarray) -> np.ndarray:
    out = np.empty_like(image)
    codec.decode(np.frombuffer(data, np.uint8), out)
    return out


@settings(max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, colour=st.booleans(), data=st.data())
def test_a_window_equals_the_window_of_the_whole(height: int, width: int, colour: bool, data: st.DataObject) -> None:
    image, codec = picture(height, width, colour), JpegCodec(95, colour)
    stored = np.frombuffer(codec.encode(image), np.uint8)
    whole = decoded(codec, stored.tobytes(), image)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    h, w = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    out = np.empty((h, w, *image.shape[2:]), np.uint8)
    codec.decode_window(stored, image.shape, top, left, out)
    assert np.array_equal(out, whole[top : top + h, left : left + w])


@settings(max_examples=40, deadline=None)
@given(height=SIDES, width=SIDES, colour=st.booleans())
def test_every_other_decoder_sees_the_same_image(height: int, width: int, colour: bool) -> None:
    """Pillow has its own libjpeg-turbo; it must stop at the end of the first image and see the stated size."""
    image, codec = picture(height, width, colour), JpegCodec(95, colour)
    data = codec.encode(image)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.size == (width, height) and opened.format == "JPEG"
        theirs = np.asarray(opened)
    assert np.abs(theirs.astype(int) - decoded(codec, data, image)).max() <= 1


@settings(max_examples=40, deadline=None)
@given(height=SIDES, width=SIDES, colour=st.booleans())
def test_the_half_size_is_the_mean_of_2_by_2(height: int, width: int, colour: bool) -> None:
    image, codec = picture(height, width, colour), JpegCodec(95, colour)
    half = halved(image)
    assert half.shape[:2] == ((height + 1) // 2, (width + 1) // 2)
    out = np.empty_like(half)
    codec.decode_half(np.frombuffer(codec.encode(image), np.uint8), out)
    assert np.abs(out.astype(int) - half).mean() < (4 if min(height, width) >= 24 else 20)  # noise alone fills a tiny image
    if height % 2 == width % 2 == 0:
        assert np.array_equal(half, cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA).reshape(half.shape))


def test_quality_of_a_frame_and_of_its_half() -> None:
    image = picture(360, 640, detail_px=32)
    codec = JpegCodec()
    data = codec.encode(image)
    half = np.empty((180, 320, 3), np.uint8)
    codec.decode_half(data, half)
    assert psnr_db(decoded(codec, data, image), image) > 38
    assert psnr_db(half, halved(image)) > 38


def test_chroma_is_not_subsampled() -> None:
    """Single red columns on green keep their colour."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 1] = 200
    image[:, ::2] = (200, 0, 0)
    codec = JpegCodec()
    data = codec.encode(image)
    assert simplejpeg.decode_jpeg_header(data)[3] == "444"
    assert np.abs(decoded(codec, data, image).astype(int) - image).max() < 25


def test_equal_images_give_equal_bytes() -> None:
    image = picture(90, 160)
    strided = np.repeat(image, 2, axis=1)[:, ::2]
    assert len({JpegCodec().encode(image), JpegCodec().encode(image.copy()), JpegCodec().encode(strided)}) == 1


@pytest.mark.parametrize("writer", ["simplejpeg", "restart markers within rows"])
def test_jpegs_of_others_are_cropped_and_halved_too(writer: str) -> None:
    image = picture(64, 88)
    if writer == "simplejpeg":
        data = simplejpeg.encode_jpeg(image, 95, "RGB", "444")
    else:
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_RST_INTERVAL, 3]
        data = cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()
    codec, stored = JpegCodec(), np.frombuffer(data, np.uint8)
    out = np.empty((20, 30, 3), np.uint8)
    codec.decode_window(stored, image.shape, 10, 50, out)
    assert np.array_equal(out, decoded(codec, data, image)[10:30, 50:80])
    half = np.empty((32, 44, 3), np.uint8)
    codec.decode_half(stored, half)
    assert psnr_db(half, halved(image)) > 30


@pytest.mark.parametrize("keep", [0, 1, 10, 300, 0.5, 0.8])
def test_cut_off_jpegs_are_refused(keep: float) -> None:
    image = picture(64, 64)
    data = JpegCodec().encode(image)
    bad = np.frombuffer(data[: int(keep if keep > 1 or keep == 0 else keep * len(data) * 0.7)], np.uint8)
    for call in (
        lambda: JpegCodec().decode(bad, np.empty_like(image)),
        lambda: JpegCodec().decode_window(bad, image.shape, 0, 0, np.empty((64, 64, 3), np.uint8)),
    ):
        with pytest.raises(NotAJpeg):
            call()


def test_images_of_another_size_are_refused() -> None:
    data = JpegCodec().encode(picture(32, 48))
    with pytest.raises(NotAJpeg, match="48×32 where 40×32 belong"):
        JpegCodec().decode(data, np.empty((32, 40, 3), np.uint8))
    with pytest.raises(NotAJpeg, match="24×16 where 20×16 belong"):
        JpegCodec().decode_half(data, np.empty((16, 20, 3), np.uint8))


@pytest.mark.parametrize("shape", [(4, 4), (2, 8, 8, 3), (8, 8, 4), (3,)])
def test_chunks_that_are_no_image_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(StoreError, match="cannot hold a chunk of shape"):
        JpegCodec().encode(np.zeros(shape, np.uint8))
    with pytest.raises(StoreError, match="uint8 images"):
        JpegCodec().encode(np.zeros((8, 8, 3), np.uint16))


def test_configuration_round_trip_and_refusals() -> None:
    for codec in (JpegCodec(95, True), JpegCodec(80, False)):
        assert from_configuration(codec.metadata()["configuration"]) == codec
    configuration = JpegCodec().metadata()["configuration"]
    for change in ({"encoded_color_space": "CMYK"}, {"quality": "high"}):
        with pytest.raises((TypeError, ValueError)):
            from_configuration(configuration | change)
    with pytest.raises(StoreError, match="not understood"):
        parse_chain([{"name": "jpeg", "configuration": {"quality": 95}}])


def test_a_map_that_does_not_fit_is_refused() -> None:
    data = np.frombuffer(JpegCodec().encode(picture(64, 128)), np.uint8).copy()
    for at in (22, 26, 28, 32, 33, 40):  # offsets of the half, the scan and the size; number of tiles; a length
        bad = data.copy()
        bad[at + 1] ^= 0x15
        with pytest.raises(NotAJpeg):
            JpegCodec().decode_window(bad, (64, 128, 3), 0, 80, np.empty((64, 48, 3), np.uint8))
            JpegCodec().decode_half(bad, np.empty((32, 64, 3), np.uint8))


def test_tiles_divide_rows() -> None:
    assert [tile_blocks(n) for n in (80, 106, 160, 7, 1, 3, 33)] == [8, 53, 8, 7, 1, 3, 11]


@settings(max_examples=30, deadline=None)
@given(profile=st.sampled_from(["portable", "train", "archive"]), kind=st.sampled_from(["image", "depth", "mask"]), data=st.data())
def test_parts_of_any_chain_equal_those_of_the_whole(profile: str, kind: str, data: st.DataObject) -> None:
    image = picture(*data.draw(st.tuples(SIDES, SIDES)))
    chain = parse_chain(codecs_for(kind, image.dtype, True, profile))
    stored = np.frombuffer(chain.encode(image), np.uint8)
    whole = np.empty_like(image)
    chain.decode(stored, whole)
    top, left = data.draw(st.integers(0, image.shape[0] - 1)), data.draw(st.integers(0, image.shape[1] - 1))
    window = Window(top, left, data.draw(st.integers(1, image.shape[0] - top)), data.draw(st.integers(1, image.shape[1] - left)))
    out = np.empty((window.height, window.width, 3), np.uint8)
    chain.decode_part(stored, window, image.shape, out)
    assert np.array_equal(out, whole[top : top + window.height, left : left + window.width])
    half = np.empty_like(halved(image))
    chain.decode_part(stored, Half(mean=kind == "image"), image.shape, half)
    if kind != "image":
        assert np.array_equal(half, whole[::2, ::2])
    elif profile != "train":
        assert np.array_equal(half, halved(whole))


def test_a_flipped_bit_in_a_jpeg_is_found_in_any_part() -> None:
    image = picture(64, 64)
    chain = parse_chain(codecs_for("image", image.dtype, True, "train"))
    data = np.frombuffer(chain.encode(image), np.uint8).copy()
    for at in np.linspace(0, len(data) - 1, 40).astype(int):
        data[at] ^= 8
        for part in (Window(0, 0, 8, 8), Half(True)):
            with pytest.raises(Decayed, match="crc32c"):
                chain.decode_part(data, part, image.shape, np.empty((8, 8, 3) if isinstance(part, Window) else (32, 32, 3), np.uint8))
        data[at] ^= 8


def test_unknown_profiles_are_named() -> None:
    with pytest.raises(StoreError, match=r"unknown codec profile 'trian' \(did you mean 'train'\?\)"):
        codecs_for("image", np.dtype("uint8"), True, "trian")
    assert replace(JpegCodec(), quality=90) != JpegCodec()
