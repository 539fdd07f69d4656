"""Shards on disk: zarr v3 files written and read directly, and the dataset folder that commits them atomically."""
