"""What the store benchmark reads and writes: rendered frames and their mirror images, and their encoded bytes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.record.video import Video
from dataengine.store.codecs import BytesCodec, Chain, parse_chain
from dataengine.store.shard import FRAMES, ShardReader

FIELDS = ("rgb", "depth_sim", "mask_link", "mask_object", FRAMES)
"""What training robot and object pose reads of a sample; `frames` is the row of labels."""

MIRRORS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def mirrored(video: Video) -> list[Video]:
    """The video and its mirror images: other pixels, the same statistics. Labels are not mirrored; nobody looks at them here."""
    return [replace(video, images={n: np.ascontiguousarray(a[:, ::y, ::x]) for n, a in video.images.items()}) for y, x in MIRRORS]


def shards_in(folder: Path) -> list[Path]:
    return sorted(p.parent for p in folder.glob("*/zarr.json"))


@dataclass(frozen=True)
class Place:
    """A frame of a shard."""

    shard: int
    frame: int


def places(readers: list[ShardReader]) -> list[Place]:
    return [Place(s, f) for s, r in enumerate(readers) for f in range(r.frame_count)]


def buffers(reader: ShardReader) -> dict[str, np.ndarray]:
    """An array per field to decode into, as a batch's row would be."""
    return {n: np.empty(reader.array(n).info.shape[1:], reader.array(n).info.dtype) for n in FIELDS}


def payload(reader: ShardReader, frame: int) -> dict[str, bytes]:
    """The encoded bytes of a sample without their checksum: what every container of the comparison holds."""
    out = {}
    for name in FIELDS:
        array = reader.array(name)
        offset, length = array._index[frame].tolist()
        out[name] = array._bytes[offset : offset + length - 4].tobytes()
    return out


def decoders(reader: ShardReader) -> dict[str, Chain]:
    """Decoding without checksums: the floor under every reader, and what the other containers use."""
    return {n: _without_checksum(reader.array(n).info.codecs) for n in FIELDS}


def decode(chains: dict[str, Chain], data: dict[str, Any], out: dict[str, np.ndarray]) -> None:
    """All fields of a sample into `out`."""
    for name in FIELDS:
        chains[name].decode(data[name], out[name])


def cpu_ms(bodies: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """CPU ms (user and system, all threads) per sample of each body, the least of `rounds`, taken in turns.

    Every body returns how many samples it handled. Turns, because other work on the machine comes and goes.
    """
    best = dict.fromkeys(bodies, float("inf"))
    for body in bodies.values():
        body()
    for _ in range(rounds):
        for name, body in bodies.items():
            start = time.process_time()
            count = body()
            best[name] = min(best[name], (time.process_time() - start) * 1e3 / count)
    return best


def _without_checksum(codecs: list[dict[str, Any]]) -> Chain:
    chain = parse_chain([c for c in codecs if c["name"] != "crc32c"])
    assert chain.compressors or not isinstance(chain.serializer, BytesCodec)
    return chain
