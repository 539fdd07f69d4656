"""Half-block thumbnails."""

import io

import numpy as np
from rich.console import Console

from dataengine.view.terminal import UPPER_HALF_BLOCK, half_blocks


def test_two_pixels_per_cell_with_their_colours():
    image = np.zeros((4, 4, 3), np.uint8)
    image[::2], image[1::2] = (255, 0, 0), (0, 0, 255)
    text = half_blocks(image, 4)
    assert text.plain == (UPPER_HALF_BLOCK * 4 + "\n") * 2
    style = text.spans[0].style
    assert style.color.triplet == (255, 0, 0) and style.bgcolor.triplet == (0, 0, 255)


def test_equal_cells_share_one_style_and_the_shape_follows_the_picture():
    text = half_blocks(np.full((90, 160, 3), 7, np.uint8), 32)
    lines = text.plain.splitlines()
    assert len(lines) == 9 and {len(line) for line in lines} == {32}
    assert len(text.spans) == 9


def test_a_console_can_print_it(video):
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="truecolor", width=100).print(half_blocks(video.images["rgb"][0], 40))
    assert out.getvalue().count(UPPER_HALF_BLOCK) == 40 * 11
    assert "\x1b[38;2;" in out.getvalue()
