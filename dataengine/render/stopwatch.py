"""CPU seconds of this process by stage."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """`with stopwatch("sensor"): …` adds the CPU seconds of the block to `cpu_s["sensor"]`, also when it raises."""

    def __init__(self) -> None:
        self.cpu_s: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.process_time()
        try:
            yield
        finally:
            self.cpu_s[stage] += time.process_time() - begin
