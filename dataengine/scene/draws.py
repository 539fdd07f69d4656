"""Every random decision of a video has a key and a random stream of its own, and can be explained afterwards."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from dataengine.config.distributions import Distribution, describe, sample
from dataengine.scene.spec import Draw


def stream(seed: int, video: int, key: str) -> np.random.Generator:
    """The random stream of one purpose, `SeedSequence([seed, video, *words of SHA-256(key)])`.

    Streams of different keys are independent, so a decision more or fewer changes no other.
    """
    words = np.frombuffer(hashlib.sha256(key.encode()).digest()[:16], "<u4")
    return np.random.default_rng(np.random.SeedSequence([seed, video, *words.tolist()]))


class Draws:
    """Draws by key for one video; remembers the last value drawn under each key.

    Drawing again under the same key (after a rejection) goes on in that key's stream.
    """

    def __init__(self, seed: int, video: int) -> None:
        self.seed, self.video = seed, video
        self._streams: dict[str, np.random.Generator] = {}
        self._drawn: dict[str, Draw] = {}

    def rng(self, key: str) -> np.random.Generator:
        """The key's stream, for draws that are no plain distribution; tell the result to `note`."""
        if key not in self._streams:
            self._streams[key] = stream(self.seed, self.video, key)
        return self._streams[key]

    def real(self, key: str, distribution: Distribution) -> float:
        """One number."""
        return self._draw(key, distribution, float)

    def whole(self, key: str, distribution: Distribution) -> int:
        """One integer."""
        return self._draw(key, distribution, int)

    def name(self, key: str, distribution: Distribution) -> str:
        """One name."""
        return self._draw(key, distribution, str)

    def uniform(self, key: str, low: float, high: float) -> float:
        """Uniform on [low, high], for ranges that no preset sets."""
        return self.note(key, f"uniform {low:g} … {high:g}", float(self.rng(key).uniform(low, high)))

    def pick(self, key: str, names: tuple[str, ...]) -> str:
        """One of the names, equally likely."""
        return self.note(key, f"choice of {', '.join(names)}", names[int(self.rng(key).integers(len(names)))])

    def note(self, key: str, distribution: str, value: Any) -> Any:
        """Record a value (a scalar or a list of scalars) with the words that explain it; returns it."""
        self._drawn[key] = Draw(key=key, distribution=distribution, value=value)
        return value

    def forget(self, prefix: str) -> None:
        """Drop the records of a thing that was drawn but found no place."""
        self._drawn = {key: draw for key, draw in self._drawn.items() if not key.startswith(prefix)}

    def record(self) -> tuple[Draw, ...]:
        """All draws so far, in the order of their first mention."""
        return tuple(self._drawn.values())

    def _draw(self, key: str, distribution: Distribution, kind: type) -> Any:
        return self.note(key, describe(distribution), kind(sample(distribution, self.rng(key))))
