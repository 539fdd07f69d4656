"""Training views: what the detector sees of a frame of the store, and what it should say about it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from training import augment
from training.crops import box_around, crop_pairs, similarity, to_crop
from training.models.simcc import CELL


@dataclass(frozen=True)
class ViewDraw:
    """How views are drawn. ``whole``, ``empty``: shares of whole images and of windows anywhere; the rest are crops around the robot."""

    margin: float = 1.25
    whole: float = 0.2
    empty: float = 0.1
    zoom: float = 0.3
    shift: float = 0.1
    turn_rad: float = 0.35
    photometric: float = 1.0
    cut_out: float = 0.5
    backgrounds: float = 0.35
    prior_drop: float = 0.2


PLAIN = ViewDraw(whole=0, empty=0, zoom=0, shift=0, turn_rad=0, photometric=0, cut_out=0, backgrounds=0, prior_drop=1)
"""Crops around the true robot as they are, without a prior: for validation."""


ROBOT_SHARE = 0.004
"""Share of a view that shows the robot from which there is one in view."""


@dataclass
class Views:
    """``images`` (B, 3, S, S); crop matrices ``A`` (B, 3, 3); ``points_px`` (B, N, 2) in the crop; ``inside``, ``seen`` (B, N);

    ``last_px`` (B, N, 2), nan where unknown; ``mask`` (B, S/4, S/4), share of the robot; ``robot`` (B,) whether one is in view.
    """

    images: torch.Tensor
    A: torch.Tensor
    points_px: torch.Tensor
    inside: torch.Tensor
    seen: torch.Tensor
    last_px: torch.Tensor
    mask: torch.Tensor
    robot: torch.Tensor


def draw_views(batch: Mapping[str, torch.Tensor], size: int, draw: ViewDraw, generator: torch.Generator) -> Views:
    """Views of a batch with rgb, mask_link, keypoints_px and keypoint_state (the wanted keypoints only)."""
    points = batch["keypoints_px"].float()
    inside_image = batch["keypoint_state"] > 0
    height, width = batch["mask_link"].shape[-2:]
    A = _windows(points, inside_image, (height, width), size, draw, generator)
    images, mask = crop_pairs(batch["rgb"], batch["mask_link"] > 0, A, size)
    points = to_crop(torch.nan_to_num(points, nan=-1e4), A)
    inside = inside_image & ((points > -0.5) & (points < size - 0.5)).all(-1)
    if draw.backgrounds:
        images = augment.other_backgrounds(images, mask, generator, draw.backgrounds)
    images = augment.photometric(images, generator, draw.photometric)
    images, mask = augment.cut_out(images, mask, generator, draw.cut_out)
    cells = F.avg_pool2d(mask, CELL)[:, 0]
    last = augment.disturbed_prior(points, inside, generator, size, draw.prior_drop)
    robot = cells.mean((1, 2)) > ROBOT_SHARE
    return Views(images, A, points, inside, inside & (batch["keypoint_state"] == 2), last, cells, robot)


def _windows(
    points: torch.Tensor, inside: torch.Tensor, image: tuple[int, int], size: int, draw: ViewDraw, generator: torch.Generator
) -> torch.Tensor:
    """A (B, 3, 3): around the robot, of the whole image, or of a window anywhere."""
    count, device = len(points), points.device
    height, width = image

    def random(low: float, high: float, *shape: int) -> torch.Tensor:
        return augment.uniform(generator, (count, *shape), low, high).to(device)

    centre, side = box_around(points, inside, draw.margin)
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=device)
    centre = torch.where(torch.isfinite(centre), centre, middle)
    side = torch.where(inside.any(1), side, float(max(height, width)))
    kind = random(0, 1)
    whole, empty = kind < draw.whole, (kind >= draw.whole) & (kind < draw.whole + draw.empty)
    centre = torch.where(whole[:, None], middle, centre + draw.shift * side[:, None] * random(-1, 1, 2))
    side = torch.where(whole, float(max(height, width)), side)
    anywhere = random(0, 1, 2) * torch.tensor([width, height], device=device)
    centre = torch.where(empty[:, None], anywhere, centre)
    side = torch.where(empty, random(0.15, 0.6) * width, side)
    side = side * torch.exp(draw.zoom * random(-1, 1))
    return similarity(centre, side, size, draw.turn_rad * random(-1, 1))
