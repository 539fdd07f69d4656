"""In which order a trainer sees samples: a pure function of (what the data are, seed, epoch), a few µs per sample, no memory.

A shuffled epoch of n samples is a bijection of 0 … n-1 that can be evaluated at any place: a Feistel network on the
smallest square a² ≥ n, whose halves are added modulo a, walked until the value is below n. So resuming in the middle of an epoch
costs nothing, every sample comes exactly once, and any rank or worker can compute its share alone.
Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002 (generalised Feistel, cycle walking);
mixing function: Steele et al., SplittableRandom (SplitMix64), OOPSLA 2014.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dataengine.errors import StoreError

ROUNDS = 8


@dataclass(frozen=True)
class Order:
    """Order of the samples of several datasets, mixed.

    `identity` names the data (hex); `sizes` samples of each dataset; `repeats` how often each of its samples comes per
    epoch: 1 exactly once, 2 twice, 0.5 every second epoch on average: the dataset's samples are dealt like a pack of
    cards that is shuffled anew whenever it is used up, so each comes once per pack. `shuffle=False`: natural order.
    """

    identity: str
    sizes: tuple[int, ...]
    repeats: tuple[Fraction, ...]
    seed: int = 0
    shuffle: bool = True

    def __post_init__(self) -> None:
        if len(self.repeats) != len(self.sizes):
            raise StoreError(f"{len(self.repeats)} weights given for {len(self.sizes)} datasets; give one each")
        if any(r < 0 for r in self.repeats) or not any(r * n > 0 for r, n in zip(self.repeats, self.sizes, strict=True)):
            raise StoreError(f"weights {[float(r) for r in self.repeats]} leave nothing to draw; give numbers above 0")

    def length(self, epoch: int) -> int:
        """Samples in an epoch."""
        return sum(stop - start for start, stop in self._dealt(epoch))

    def take(self, epoch: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(dataset, sample in it), both (stop - start,) int64, of the places start … stop - 1 of an epoch."""
        dealt = self._dealt(epoch)
        bounds = np.cumsum([0, *(b - a for a, b in dealt)])
        if not 0 <= start <= stop <= bounds[-1]:
            raise StoreError(f"places {start} to {stop} do not lie within an epoch of {bounds[-1]} samples")
        place = np.arange(start, stop, dtype=np.uint64)
        if self.shuffle:
            place = permute(place, int(bounds[-1]), self._key("epoch", epoch))
        slot = place.astype(np.int64)
        dataset = np.searchsorted(bounds, slot, "right") - 1
        card = slot - bounds[dataset] + np.array([a for a, _ in dealt])[dataset]
        sample = np.empty_like(slot)
        for k, size in enumerate(self.sizes):
            mine = dataset == k
            if mine.any():
                sample[mine] = self._sample(k, size, card[mine])
        return dataset, sample

    def noise(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """(stop - start,) uint64: independent random bits for every place of an epoch, for crops and augmentation."""
        place = np.arange(start, stop, dtype=np.uint64)
        with np.errstate(over="ignore"):
            return _mix(place + _keys(self._key("noise", epoch))[0])

    def _sample(self, dataset: int, size: int, card: np.ndarray) -> np.ndarray:
        """Samples at places of the endless sequence of packs of one dataset."""
        pack, place = np.divmod(card, size)
        if not self.shuffle:
            return place
        out = np.empty_like(place)
        for number in np.unique(pack):
            mine = pack == number
            out[mine] = permute(place[mine].astype(np.uint64), size, self._key(f"dataset {dataset}", int(number))).astype(np.int64)
        return out

    def _dealt(self, epoch: int) -> list[tuple[int, int]]:
        """Per dataset, the part of its endless sequence that falls into an epoch."""
        if epoch < 0:
            raise StoreError(f"epoch {epoch} does not exist; they are counted from 0")
        steps = [r * n for r, n in zip(self.repeats, self.sizes, strict=True)]
        return [(math.floor(epoch * s), math.floor((epoch + 1) * s)) for s in steps]

    def _key(self, what: str, number: int) -> bytes:
        return f"{self.identity}|{self.seed}|{what}|{number}".encode()


def repeats_for_shares(sizes: Sequence[int], shares: Sequence[float]) -> tuple[Fraction, ...]:
    """Repeats under which each dataset makes up its share of an epoch, the one that would have to repeat least coming once."""
    if len(shares) != len(sizes) or any(not s > 0 for s in shares) or any(n < 1 for n in sizes):
        raise StoreError(f"shares {list(shares)} do not fit {len(sizes)} datasets; give one number above 0 each")
    rates = [Fraction(str(s)) / n for s, n in zip(shares, sizes, strict=True)]
    return tuple(r / min(rates) for r in rates)


def permute(place: np.ndarray, size: int, key: bytes) -> np.ndarray:
    """A bijection of 0 … size - 1 chosen by `key`, evaluated at `place` (uint64)."""
    side = np.uint64(max(1, math.isqrt(size - 1) + 1 if size > 1 else 1))
    keys = _keys(key)
    out = _network(place, side, keys)
    while (walking := out >= size).any():
        out[walking] = _network(out[walking], side, keys)
    return out


def _network(value: np.ndarray, side: np.uint64, keys: np.ndarray) -> np.ndarray:
    left, right = value // side, value % side
    for key in keys:
        left, right = right, (left + _mix(right ^ key) % side) % side
    return left * side + right


def _keys(key: bytes) -> np.ndarray:
    """(ROUNDS,) uint64."""
    return np.frombuffer(hashlib.sha512(key).digest(), "<u8").astype(np.uint64)[:ROUNDS]


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser with its increment, elementwise on uint64."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
