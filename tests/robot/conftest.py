"""Baking a robot takes seconds: one cache folder for the whole test run."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def robot_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of our own, so that tests neither read nor fill the user's."""
    return tmp_path_factory.mktemp("cache")
