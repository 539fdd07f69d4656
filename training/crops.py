"""Square crops of images by similarity transforms, with the points, cameras and covariances that go with them.

Pixel centres are integers. A crop is given by the matrix ``A`` (3, 3) that maps homogeneous image pixels to crop pixels;
the crop's camera is exactly ``A @ K`` (upper triangular unless the crop is turned), so nothing is lost by cropping.
"""

import math

import torch
import torch.nn.functional as F

GREY = 114.0
CONTRAST = 58.0
"""Images reach the network as (x - GREY) / CONTRAST; what lies outside the image is GREY, that is, 0."""


def similarity(centre_px: torch.Tensor, side_px: torch.Tensor, size: int, angle_rad: torch.Tensor | None = None) -> torch.Tensor:
    """A (B, 3, 3) float64: the square of ``side_px`` (B,) around ``centre_px`` (B, 2) → crop of ``size`` pixels a side.

    Borders go to borders: a pixel c of an unturned crop with first pixel l is (c - l + 0.5)·s - 0.5, s = size / side.
    ``angle_rad`` (B,) turns the content clockwise as seen (y points down).
    """
    scale = size / side_px.double()
    angle = torch.zeros_like(scale) if angle_rad is None else angle_rad.double()
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    linear = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    shift = (size - 1) / 2 - (linear @ centre_px.double()[..., None])[..., 0]
    A = torch.zeros(*scale.shape, 3, 3, dtype=torch.float64, device=scale.device)
    A[..., :2, :2], A[..., :2, 2], A[..., 2, 2] = linear, shift, 1.0
    return A


def whole_view(height: int, width: int, size: int) -> torch.Tensor:
    """A (3, 3) of the whole image, centred in a square."""
    return similarity(torch.tensor([(width - 1) / 2, (height - 1) / 2]), torch.tensor(float(max(height, width))), size)


def box_around(points_px: torch.Tensor, used: torch.Tensor, margin: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre (B, 2) and side (B,) of the square around the ``used`` (B, P) points (B, P, 2), its sides ``margin`` times the extent.

    At least 16 px; where no point is used the centre is nan.
    """
    inf = torch.tensor(torch.inf, dtype=points_px.dtype, device=points_px.device)
    low = torch.where(used[..., None], points_px, inf).amin(-2)
    high = torch.where(used[..., None], points_px, -inf).amax(-2)
    centre = torch.where(torch.isfinite(low), (low + high) / 2, torch.nan)
    return centre, ((high - low).amax(-1) * margin).clamp_min(16.0)


def to_crop(points_px: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """Image pixels (..., P, 2) → crop pixels, by A (..., 3, 3)."""
    A = A.to(points_px.dtype)
    return points_px @ A[..., :2, :2].mT + A[..., None, :2, 2]


def to_image(points_px: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """Inverse of `to_crop`."""
    return to_crop(points_px, torch.linalg.inv(A.double()))


def covariance_to_image(covariance_px2: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """(..., P, 2, 2) px² in the crop → px² in the image."""
    J = torch.linalg.inv(A.double())[..., None, :2, :2].to(covariance_px2.dtype)
    return J @ covariance_px2 @ J.mT


def pixel_scale(A: torch.Tensor) -> torch.Tensor:
    """(...) crop pixels per image pixel."""
    return torch.sqrt(torch.linalg.det(A[..., :2, :2]))


def crop_images(images: torch.Tensor, A: torch.Tensor, size: int) -> torch.Tensor:
    """(B, C, H, W) float → (B, C, size, size), bilinear; where it shrinks n-fold, averaged over n × n pixels first. Outside is 0."""
    factor = _pooling(A).tolist()
    out = images.new_empty(len(images), images.shape[1], size, size)
    for k in sorted(set(factor)):
        rows = [i for i, f in enumerate(factor) if f == k]
        # The common case is all images at once: no copy then.
        part = images if len(rows) == len(images) else images[rows]
        out[rows] = _sample(F.avg_pool2d(part, k) if k > 1 else part, A[rows], size, k)
    return out


def _pooling(A: torch.Tensor) -> torch.Tensor:
    """(...) how many pixels a side are averaged first."""
    return (1 / pixel_scale(A) + 1e-9).floor().clamp(1, 8).to(torch.int64)


def _sample(images: torch.Tensor, A: torch.Tensor, size: int, pooled: int) -> torch.Tensor:
    """Bilinear at the crop's pixel centres, in images that were averaged over ``pooled`` pixels a side."""
    height, width = images.shape[-2:]
    back = torch.linalg.inv(A.double())
    # pooled pixel p = (u + 0.5) / k - 0.5; grid_sample wants (2 p + 1) / width - 1
    scale = torch.tensor([2 / (pooled * width), 2 / (pooled * height)], dtype=torch.float64, device=A.device)
    linear = back[:, :2, :2] * scale[:, None]
    shift = (back[:, :2, 2] + 0.5) * scale - 1
    axis = torch.arange(size, dtype=torch.float64, device=A.device)
    x, y = (linear[:, None, :, 0] * axis[:, None]), (linear[:, None, :, 1] * axis[:, None])
    grid = (y[:, :, None] + x[:, None, :] + shift[:, None, None]).to(images.dtype)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def crop_photo(image_rgb: torch.Tensor, A: torch.Tensor, size: int) -> torch.Tensor:
    """One uint8 photo (H, W, 3) by A (3, 3) → (1, 3, size, size) as the network wants it. Touches only the pixels needed."""
    rows, columns, moved = _reach(A, size, image_rgb.shape[0], image_rgb.shape[1])
    part = image_rgb[rows, columns].permute(2, 0, 1).float().sub_(GREY).mul_(1 / CONTRAST)
    return crop_images(part[None], moved[None], size)


def crop_pairs(photos_rgb: torch.Tensor, masks: torch.Tensor, A: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Photos (B, H, W, 3) and masks (B, H, W), uint8 and bool, by A (B, 3, 3) → (B, 3, size, size) normalised and (B, 1, size, size)."""
    if photos_rgb.is_cuda:
        images = torch.cat([photos_rgb.permute(0, 3, 1, 2).float().sub_(GREY).mul_(1 / CONTRAST), masks[:, None].float()], 1)
        crops = crop_images(images, A, size)
        return crops[:, :3], crops[:, 3:]
    # On a CPU converting whole photos would cost more than the crops.
    out = photos_rgb.new_empty(len(A), 4, size, size, dtype=torch.float32)
    for photo, mask, matrix, target in zip(photos_rgb, masks, A, out, strict=True):
        rows, columns, moved = _reach(matrix, size, *mask.shape)
        part = torch.empty(4, rows.stop - rows.start, columns.stop - columns.start)
        part[:3] = photo[rows, columns].permute(2, 0, 1)
        part[:3].sub_(GREY).mul_(1 / CONTRAST)
        part[3] = mask[rows, columns]
        target[:] = crop_images(part[None], moved[None], size)[0]
    return out[:, :3], out[:, 3:]


def _reach(A: torch.Tensor, size: int, height: int, width: int) -> tuple[slice, slice, torch.Tensor]:
    """Rows and columns of the image that a crop needs, and its matrix from that part."""
    corners = torch.tensor([[-1.0, -1.0], [size, -1.0], [-1.0, size], [size, size]], dtype=torch.float64)
    reach = to_image(corners, A)
    left, top = (math.floor(v) - 8 for v in reach.amin(0).tolist())
    right, bottom = (math.ceil(v) + 9 for v in reach.amax(0).tolist())
    # Pixels are averaged in the same groups as in the whole image.
    k = int(_pooling(A))
    left, top = min(max(left, 0), width - k) // k * k, min(max(top, 0), height - k) // k * k
    right, bottom = max(min(right, width), left + k), max(min(bottom, height), top + k)
    moved = A.clone()
    moved[:2, 2] += A[:2, :2] @ torch.tensor([left, top], dtype=A.dtype)
    return slice(top, bottom), slice(left, right), moved
