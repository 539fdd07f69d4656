"""What docs/benchmarks/robokeygen.md shows: measured rows, the paper's own, and the page."""
