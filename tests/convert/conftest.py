import os

import pytest

from tests.convert.worlds import panda_video

os.environ["OPENCV_IO_ENABLE_OPENEXR"] = "1"  # OpenCV, as the users of these layouts read them, looks at it once


@pytest.fixture(scope="session")
def video():
    return panda_video(1)
