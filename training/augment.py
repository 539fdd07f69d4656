"""Changes of training crops that leave the geometry as it is: light, colour, blur, noise, things in front, other backgrounds.

Images (B, 3, S, S) are normalised as in `training.crops`. Every random number comes from the generator given.
"""

import torch
import torch.nn.functional as F

from training.crops import CONTRAST, GREY


def uniform(generator: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
    """float32 on the generator's device."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def happens(generator: torch.Generator, shape: tuple[int, ...], probability: float) -> torch.Tensor:
    """Booleans."""
    return torch.rand(shape, generator=generator, device=generator.device) < probability


def photometric(images: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Brightness, contrast, saturation, colour cast, gamma, blur and noise, each drawn per image; ``strength`` 0 changes nothing."""
    if strength == 0:
        return images
    one = (len(images), 1, 1, 1)
    x = ((images * CONTRAST + GREY) / 255).clamp(0, 1)
    x = x ** torch.exp(uniform(generator, one, -0.4, 0.4) * strength)
    grey = x.mean(1, keepdim=True)
    saturation = 1 + strength * uniform(generator, one, -0.6, 0.5)
    saturation = torch.where(happens(generator, one, 0.05 * strength), 0.0, saturation)
    x = grey + saturation * (x - grey)
    x = x * torch.exp(strength * uniform(generator, (len(images), 3, 1, 1), -0.25, 0.25))
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + (x - middle) * torch.exp(strength * uniform(generator, one, -0.4, 0.4)) + strength * uniform(generator, one, -0.15, 0.15)
    blurred = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")
    x = torch.lerp(x, blurred, happens(generator, one, 0.3 * strength) * uniform(generator, one, 0, 1))
    noise = torch.randn(x.shape, generator=generator, device=generator.device) * uniform(generator, one, 0, 0.05) * strength
    return ((x + noise).clamp(0, 1) * 255 - GREY) / CONTRAST


def cut_out(images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator, probability: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A rectangle or ellipse of one colour with noise over each chosen image; the robot's mask (B, 1, S, S) loses what it hides.

    Its sides are 8 to 35 % of the image's.
    """
    one = (len(images), 1, 1, 1)
    size = images.shape[-1]
    axis = torch.arange(size, device=images.device, dtype=images.dtype)
    half = uniform(generator, (2, *one), 0.04, 0.175) * size
    centre = uniform(generator, (2, *one), 0, size)
    dx, dy = (axis - centre[0]) / half[0], (axis[:, None] - centre[1]) / half[1]
    ellipse = happens(generator, one, 0.5)
    inside = torch.where(ellipse, dx**2 + dy**2 < 1, (dx.abs() < 1) & (dy.abs() < 1)) & happens(generator, one, probability)
    colour = uniform(generator, (len(images), 3, 1, 1), -1.8, 2.2)
    grain = torch.randn(images.shape, generator=generator, device=generator.device) * uniform(generator, one, 0, 0.4)
    return torch.where(inside, colour + grain, images), masks * ~inside


def other_backgrounds(images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator, probability: float) -> torch.Tensor:
    """Put the robot of some images before the surroundings of the next image, mirrored; that one's robot is painted over.

    ``masks`` (B, 1, S, S): share of the pixel that shows the robot. Things before the robot keep their outline on it.
    """
    if probability == 0 or len(images) < 2:
        return images
    chosen = happens(generator, (len(images), 1, 1, 1), probability)
    patches = F.interpolate(uniform(generator, (len(images), 3, 6, 6), -1.8, 2.2), size=images.shape[-2:], mode="bilinear")
    cover = F.interpolate(F.max_pool2d(masks, 4), scale_factor=4.0, mode="nearest").roll(1, 0)
    behind = torch.lerp(images.roll(1, 0), patches, cover).flip(-1)
    return torch.where(chosen, torch.lerp(behind, images, masks), images)


def disturbed_prior(points_px: torch.Tensor, inside: torch.Tensor, generator: torch.Generator, size: int, drop: float) -> torch.Tensor:
    """What the last frame would have said: the points (B, N, 2) moved by up to some percent of the crop, some wrong, some missing.

    nan is missing. The whole prior of an image is missing with probability ``drop`` (0.2 in the paper), any single point
    with 0.1; one in ten points is wrong by a tenth of the crop. Points outside the crop are missing.
    """
    batch, count = inside.shape
    shift = torch.randn((batch, 1, 2), generator=generator, device=generator.device) * uniform(generator, (batch, 1, 1), 0, 0.04)
    jitter = torch.randn((batch, count, 2), generator=generator, device=generator.device) * uniform(generator, (batch, 1, 1), 0, 0.03)
    wrong = torch.randn((batch, count, 2), generator=generator, device=generator.device) * 0.1
    moved = points_px + size * (shift + jitter + wrong * happens(generator, (batch, count, 1), 0.1))
    missing = ~inside | happens(generator, (batch, count), 0.1) | happens(generator, (batch, 1), drop)
    return torch.where(missing[..., None], torch.nan, moved)
