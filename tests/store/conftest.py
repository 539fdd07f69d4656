import pytest

from dataengine.record.video import Video
from tests.store.synthetic import synthetic_video


@pytest.fixture
def tiny() -> Video:
    return synthetic_video()
