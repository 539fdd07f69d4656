import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numcodecs import blosc, zstd

from dataengine.errors import StoreError
from dataengine.store.codecs import Decayed, crc32c, parse_chain, portable, zstd_content_size

DTYPES = ("uint8", "int8", "uint16", "uint32", "float32")
CHUNKS = st.sampled_from(DTYPES).flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=2, max_dims=4, max_side=20)))


def test_crc32c_of_the_check_string_is_the_published_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4, and every CRC catalogue


@settings(max_examples=60, deadline=None)
@given(chunk=CHUNKS, kind=st.sampled_from(["image", "depth", "mask", "table"]))
def test_every_chain_returns_the_exact_bits(chunk: np.ndarray, kind: str) -> None:
    chain = parse_chain(portable(kind, chunk.dtype))
    data = chain.encode(chunk)
    out = np.full_like(chunk, 1)
    chain.decode(np.frombuffer(data, np.uint8), out)
    assert out.tobytes() == chunk.tobytes()
    assert chain.encode(chunk) == data


def test_a_strided_view_is_stored_in_its_own_order() -> None:
    whole = np.arange(2 * 60 * 40, dtype=np.uint16).reshape(2, 60, 40)
    view = whole[1, ::2, ::-1]
    chain = parse_chain(portable("depth", view.dtype))
    out = np.empty(view.shape, view.dtype)
    chain.decode(np.frombuffer(chain.encode(view), np.uint8), out)
    assert np.array_equal(out, view)


def test_big_endian_values_are_understood() -> None:
    chain = parse_chain([{"name": "bytes", "configuration": {"endian": "big"}}])
    values = np.array([1, 256, 65535], np.uint16)
    assert bytes(chain.encode(values)) == b"\x00\x01\x01\x00\xff\xff"
    out = np.empty_like(values)
    chain.decode(np.frombuffer(values.astype(">u2").tobytes(), np.uint8), out)
    assert np.array_equal(out, values)


def test_blosc_bytes_do_not_depend_on_threads() -> None:
    """More blocks than threads: with blosc's pool, the order of the blocks would differ between runs."""
    noise = np.random.default_rng(0).integers(0, 50, (600, 900, 3), np.uint8)
    chain = parse_chain(portable("image", noise.dtype))
    before = blosc.get_nthreads()
    try:
        blosc.set_nthreads(8)
        assert len({bytes(chain.encode(noise)) for _ in range(4)}) == 1
    finally:
        blosc.set_nthreads(before)


@given(size=st.one_of(st.integers(0, 1000), st.integers(65_000, 67_000), st.just(300_000)), level=st.sampled_from([-1, 1, 3]))
@settings(max_examples=40, deadline=None)
def test_zstd_frame_size_is_read_from_its_header(size: int, level: int) -> None:
    data = zstd.compress(np.zeros(size, np.uint8), level)
    assert zstd_content_size(data) == size


@pytest.mark.parametrize("kind", ["image", "mask"])
@pytest.mark.parametrize("held", [50, 200])
def test_a_chunk_of_another_size_is_refused_although_its_checksum_fits(kind: str, held: int) -> None:
    """Decompressors fill part of a larger target without a word."""
    chain = parse_chain(portable(kind, np.dtype("uint8")))
    data = np.frombuffer(chain.encode(np.ones(held, np.uint8)), np.uint8)
    with pytest.raises(Decayed, match=f"holds {held} bytes where 100 belong"):
        chain.decode(data, np.empty(100, np.uint8))


@pytest.mark.parametrize("name", ["blosc", "zstd"])
def test_rubbish_under_a_valid_checksum_is_decayed(name: str) -> None:
    options = {"cname": "zstd", "clevel": 1, "shuffle": "noshuffle", "typesize": 1} if name == "blosc" else {"level": 1}
    chain = parse_chain([{"name": "bytes"}, {"name": name, "configuration": options}])
    for length in (0, 3, 40):
        with pytest.raises(Decayed):
            chain.decode(np.full(length, 7, np.uint8), np.empty(100, np.uint8))


def test_unknown_codecs_are_named() -> None:
    with pytest.raises(StoreError, match=r"unknown codec 'blosk' \(did you mean 'blosc'\?\)"):
        parse_chain([{"name": "bytes"}, {"name": "blosk"}])
    with pytest.raises(StoreError, match="unknown codec 'vlen-utf8'"):
        parse_chain([{"name": "vlen-utf8"}])
    with pytest.raises(StoreError, match="no codecs"):
        parse_chain([])
    with pytest.raises(StoreError, match="not understood"):
        parse_chain([{"name": "bytes"}, {"name": "zstd", "configuration": {"level_typo": 3}}])
