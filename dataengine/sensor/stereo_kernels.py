"""Compiled inner loops of `stereo`: B-spline prefilter, sub-pixel refinement, slope correction, visibility check."""

from __future__ import annotations

import math

import numpy as np

from dataengine.sensor.compiled import compiled

WINDOW = 10
"""Side of the matching window in native px."""
LANES = 16
"""Row buffers are padded to one vector register; the padding carries zero gradient and zero mask."""
BORDER = 16
"""Columns and rows that the caller adds around both images."""
ONE, TWO, THREE = np.uint64(1), np.uint64(2), np.uint64(3)
_POLE = math.sqrt(3.0) - 2.0


@compiled
def bspline_prefilter_rows(image: np.ndarray) -> None:
    """Replace each row of float32 image (H, W) by the coefficients of its cubic B-spline (Unser 1999, box 2), in place."""
    height, width = image.shape
    pole = np.float32(_POLE)
    gain = np.float32(6.0)
    for row in range(height):
        line = image[row]
        total, weight = np.float32(0.0), np.float32(1.0)
        for k in range(min(width, 24)):  # |pole|^24 = 2e-14
            total += weight * line[k]
            weight *= pole
        line[0] = gain * total
        for k in range(1, width):
            line[k] = gain * line[k] + pole * line[k - 1]
        last = pole / (pole * pole - np.float32(1.0))
        line[width - 1] = last * (line[width - 1] + pole * line[width - 2])
        for k in range(width - 2, -1, -1):
            line[k] = pole * (line[k + 1] - line[k])


@compiled
def spline_weights(t: float) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Weights of the four coefficients around a sample at fraction t in 0..1 after the second."""
    s = 1.0 - t
    w0, w3 = s * s * s / 6.0, t * t * t / 6.0
    w1 = 2.0 / 3.0 - 0.5 * t * t * (2.0 - t)
    return np.float32(w0), np.float32(w1), np.float32(1.0 - w0 - w1 - w3), np.float32(w3)


@compiled
def uniform_window(seed: np.ndarray, top: int, bottom: int, first: int, last: int, value: float, tolerance: float) -> bool:
    """Whether the output pixels in rows top..bottom and columns first..last exist and have seeds within tolerance of value."""
    if top < 0 or first < 0 or bottom >= seed.shape[0] or last >= seed.shape[1]:
        return False
    outside = 0
    for y in range(top, bottom + 1):
        line = seed[y, first : last + 1]
        for x in range(len(line)):
            outside += abs(line[x] - value) > tolerance
    return outside == 0


@compiled
def window_mask(seed: np.ndarray, row: int, column: int, scale: int, y0: int, x0: int, tolerance: float, mask: np.ndarray) -> int:
    """1 in mask (10, 16) where a native pixel's seed is within tolerance of the centre's and inside the image; their number."""
    value, count = seed[row, column], 0
    for j in range(WINDOW):
        y = (y0 + j) // scale
        for i in range(WINDOW):
            x = (x0 + i) // scale
            same = 0 <= y < seed.shape[0] and 0 <= x < seed.shape[1] and abs(seed[y, x] - value) <= tolerance
            mask[j, i] = 1.0 if same else 0.0
            count += same
    return count


# The three window sums below run columns outside and rows inside: the ten rows unroll, the sixteen columns become one
# vector register, and there is one horizontal sum per window instead of one per row (7 times faster). Unsigned
# indices spare the test for negative ones, which would keep the compiler from vectorising.


@compiled
def template_terms(
    left: np.ndarray, gradient: np.ndarray, y0: int, x0: int, mask: np.ndarray, count: int, g: np.ndarray, t: np.ndarray
) -> tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]:
    """Mean-free masked gradient g and template t (10, 16) of the left window at padded (y0, x0).

    Returns (sum g², sum g·t, sum t², mean gradient², centroid x, centroid y of the gradient energy from the first pixel).
    """
    zero = np.float32(0.0)
    sum_g, sum_t, gg, gt, tt, ex, ey = zero, zero, zero, zero, zero, zero, zero
    top, first = np.uint64(y0), np.uint64(x0)
    for i in range(LANES):
        x = first + np.uint64(i)
        lane_g, lane_t, lane_gg, lane_gt, lane_tt, lane_y = zero, zero, zero, zero, zero, zero
        for j in range(WINDOW):
            y = top + np.uint64(j)
            gi, ti = mask[j, i] * gradient[y, x], mask[j, i] * left[y, x]
            g[j, i] = gi
            t[j, i] = ti
            lane_g += gi
            lane_t += ti
            lane_gg += gi * gi
            lane_gt += gi * ti
            lane_tt += ti * ti
            lane_y += gi * gi * np.float32(j)
        sum_g += lane_g
        sum_t += lane_t
        gg += lane_gg
        gt += lane_gt
        tt += lane_tt
        ex += lane_gg * np.float32(i)
        ey += lane_y
    inverse = np.float32(1.0) / np.float32(count)
    mean_g, mean_t = sum_g * inverse, sum_t * inverse
    for i in range(LANES):
        for j in range(WINDOW):
            g[j, i] -= mask[j, i] * mean_g
            t[j, i] -= mask[j, i] * mean_t
    safe = max(gg, np.float32(1e-6))
    return gg - sum_g * mean_g, gt - sum_g * mean_t, tt - sum_t * mean_t, gg * inverse, ex / safe, ey / safe


@compiled
def warped_product(right: np.ndarray, y0: int, first: int, w: tuple, g: np.ndarray) -> np.float32:
    """Sum over the window of g times the spline of the right rows, whose samples start at coefficient ``first``."""
    w0, w1, w2, w3 = w
    total = np.float32(0.0)
    top, left = np.uint64(y0), np.uint64(first)
    for i in range(LANES):
        x, lane = left + np.uint64(i), np.float32(0.0)
        for j in range(WINDOW):
            y = top + np.uint64(j)
            r = w0 * right[y, x] + w1 * right[y, x + ONE] + w2 * right[y, x + TWO] + w3 * right[y, x + THREE]
            lane += g[j, i] * r
        total += lane
    return total


@compiled
def warped_energy(
    right: np.ndarray, y0: int, first: int, w: tuple, t: np.ndarray, mask: np.ndarray, count: int
) -> tuple[np.float32, np.float32]:
    """(sum r·t, sum of (r − mean r)²) over the masked window of the warped right image r."""
    w0, w1, w2, w3 = w
    rt, rr, total = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    top, left = np.uint64(y0), np.uint64(first)
    for i in range(LANES):
        x = left + np.uint64(i)
        lane_rt, lane_rr, lane_r = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for j in range(WINDOW):
            y = top + np.uint64(j)
            r = w0 * right[y, x] + w1 * right[y, x + ONE] + w2 * right[y, x + TWO] + w3 * right[y, x + THREE]
            r *= mask[j, i]
            lane_r += r
            lane_rt += r * t[j, i]
            lane_rr += r * r
        total += lane_r
        rt += lane_rt
        rr += lane_rr
    return rt, rr - total * total / np.float32(count)


@compiled
def refine(
    left: np.ndarray, gradient: np.ndarray, right: np.ndarray, seed: np.ndarray, scale: int, iterations: int,
    max_step: float, max_move: float, seed_tolerance: float, min_zncc: float, min_texture: float,
    disparity: np.ndarray, centroid: np.ndarray,
) -> None:  # fmt: skip
    """Inverse-compositional Lucas–Kanade along x (Baker & Matthews 2004) for every output pixel.

    left, gradient (d left / dx) and right (spline coefficients along x): native images with BORDER padding.
    seed (H, W): native disparity, negative = none. disparity (H, W), centroid (H, W, 2) are written; centroid is the
    offset (x, y) in native px from the output pixel's centre to where the disparity was actually measured.
    """
    height, width = seed.shape
    buffers = np.zeros((4, WINDOW, LANES), np.float32)
    everywhere, partial, g, t = buffers[0], buffers[1], buffers[2], buffers[3]
    everywhere[:, :WINDOW] = 1.0
    inset = WINDOW // 2 - scale // 2
    for row in range(height):
        for column in range(width):
            disparity[row, column] = np.nan
            start = seed[row, column]
            if start < 0.0:
                continue
            x0, y0 = column * scale - inset, row * scale - inset
            if x0 + WINDOW - start < 2:  # the window lies left of the right image
                continue
            last_row, last_column = (y0 + WINDOW - 1) // scale, (x0 + WINDOW - 1) // scale
            mask, count = everywhere, WINDOW * WINDOW
            if not uniform_window(seed, y0 // scale, last_row, x0 // scale, last_column, start, seed_tolerance):
                mask = partial
                count = window_mask(seed, row, column, scale, y0, x0, seed_tolerance, partial)
            px, py = x0 + BORDER, y0 + BORDER
            gg, gt, tt, texture, ex, ey = template_terms(left, gradient, py, px, mask, count, g, t)
            if texture < min_texture or gg <= 0.0 or tt <= 0.0:
                continue
            d = start
            for _ in range(iterations):
                at = max(px - d, 1.0)
                first = math.floor(at)
                gr = warped_product(right, py, first - 1, spline_weights(at - first), g)
                d += min(max((gr - gt) / gg, -max_step), max_step)
            if abs(d - start) > max_move or d <= 0.0:
                continue
            at = max(px - d, 1.0)
            first = math.floor(at)
            rt, rr = warped_energy(right, py, first - 1, spline_weights(at - first), t, mask, count)
            if rt * abs(rt) > min_zncc * min_zncc * rr * tt:
                disparity[row, column] = d
                centroid[row, column, 0] = x0 + ex - (column * scale + 0.5 * (scale - 1))
                centroid[row, column, 1] = y0 + ey - (row * scale + 0.5 * (scale - 1))


@compiled
def slope_at(disparity: np.ndarray, row: int, column: int, along_x: bool, reach: int, max_difference: float) -> float:
    """Local slope (per output px) from up to 5 central differences over ±reach px; 0 where none is trustworthy."""
    height, width = disparity.shape
    total, count = 0.0, 0
    for k in range(-2, 3):
        if along_x:
            ya, yb, xa, xb = row + k, row + k, column - reach, column + reach
        else:
            ya, yb, xa, xb = row - reach, row + reach, column + k, column + k
        if min(ya, xa) < 0 or yb >= height or xb >= width:
            continue
        difference = disparity[yb, xb] - disparity[ya, xa]
        if abs(difference) <= max_difference:  # false for NaN
            total += difference
            count += 1
    return total / (count * 2 * reach) if count else 0.0


@compiled
def centre(disparity: np.ndarray, centroid: np.ndarray, scale: int, reach: int, max_difference: float, out: np.ndarray) -> None:
    """Move each measurement from its centroid to the output pixel's centre along the local slope of the disparity map.

    Lucas–Kanade answers for the gradient-energy centroid of the dots in its window; on a 45° wall that is off by up to
    0.1 px of disparity.
    """
    height, width = disparity.shape
    for row in range(height):
        for column in range(width):
            value = disparity[row, column]
            if value == value:
                sx = slope_at(disparity, row, column, True, reach, max_difference) / scale
                sy = slope_at(disparity, row, column, False, reach, max_difference) / scale
                value -= sx * centroid[row, column, 0] + sy * centroid[row, column, 1]
            out[row, column] = value


@compiled
def drop_hidden(disparity: np.ndarray, scale: int, tolerance: float) -> None:
    """NaN where the right eye would see another, nearer surface: forward warp with a per-row nearest buffer, in place."""
    height, width = disparity.shape
    nearest = np.empty(width, np.float32)
    for row in range(height):
        nearest[:] = -1.0
        for column in range(width):
            d = disparity[row, column]
            x = math.floor(column - d / scale + 0.5) if d == d else -1
            if 0 <= x < width and d > nearest[x]:
                nearest[x] = d
        for column in range(width):
            d = disparity[row, column]
            x = math.floor(column - d / scale + 0.5) if d == d else -1
            if 0 <= x < width and d < nearest[x] - tolerance:
                disparity[row, column] = np.nan
