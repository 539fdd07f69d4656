"""The denoiser called directly, and samples gathered over a clip: against closed forms and made-up noise."""

import numpy as np
import pytest

from dataengine.errors import RenderError
from dataengine.geometry import se3
from dataengine.render.blender.clip_denoise import NOISY_PASSES, denoise_clip, gather, light_agreement, same_surface
from dataengine.render.blender.denoise import Denoiser
from tests.render.blender.scenes import floor, look_at, material, scene, thing

H, W = 120, 160


def frame(seed, light=1.0, ids=None, depth=None, noise=0.4):
    """A textured wall with multiplicative noise, as the passes of one frame."""
    rng = np.random.default_rng(seed)
    texture = 0.3 + 0.4 * ((np.mgrid[:H, :W].sum(0) // 8) % 2)[..., None] * np.ones(3)
    color = (texture * light * rng.gamma(1 / noise**2, noise**2, (H, W, 1))).astype(np.float32)
    surface = np.ones((H, W, 1), np.float32) if ids is None else ids
    z = np.full((H, W, 1), 2.0, np.float32) if depth is None else depth
    normal = np.tile(np.float32([0, 0, 1]), (H, W, 1))
    return dict(zip(NOISY_PASSES, (color, texture.astype(np.float32), normal, z, surface), strict=True)), texture * light


def error(image, truth):
    return np.sqrt(np.mean((image - truth) ** 2))


def test_denoiser_removes_noise_and_keeps_texture():
    noisy, truth = frame(1)
    with Denoiser() as denoiser:
        clean = denoiser.color(noisy["Combined"], noisy["Denoising Albedo"], noisy["Denoising Normal"], "HIGH", clean_auxiliaries=True)
    assert clean.shape == truth.shape and clean.dtype == np.float32
    assert error(clean, truth) < 0.15 * error(noisy["Combined"], truth)


def test_denoiser_is_reproducible_and_names_a_wrong_shape():
    noisy, _ = frame(1)
    images = noisy["Combined"], noisy["Denoising Albedo"], noisy["Denoising Normal"]
    a, b = (Denoiser().color(*images, "FAST", clean_auxiliaries=False) for _ in range(2))
    assert np.array_equal(a, b)
    with pytest.raises(RenderError, match=r"albedo has shape \(120, 80, 3\)"):
        Denoiser().color(images[0], images[1][:, :80], images[2], "FAST", clean_auxiliaries=False)


def test_still_clip_shares_its_samples():
    frames, truths = zip(*(frame(seed) for seed in range(3)), strict=True)
    color, albedo, _ = gather(frames, 1)
    # three frames hold three times the samples; weights below 1 cost some of the √3
    assert error(color, truths[1]) < 0.68 * error(frames[1]["Combined"], truths[1])
    assert np.allclose(albedo, frames[1]["Denoising Albedo"], atol=1e-6)


def test_what_moved_keeps_to_its_own_frame():
    ids = np.ones((H, W, 1), np.float32)
    ids[:, 80:] = 2
    near = np.full((H, W, 1), 2.0, np.float32)
    near[:40] = 1.9
    a, _ = frame(1)
    for changed in (frame(2, ids=ids)[0], frame(2, depth=near)[0]):
        weight = same_surface(a, changed)
        moved = (changed["IndexOB"] != 1)[..., 0] | (changed["Depth"] != 2)[..., 0]
        assert (weight[moved] == 0).all() and weight[~moved].mean() > 0.9
        color = gather((a, changed), 0)[0]
        assert np.array_equal(color[moved], a["Combined"][moved])


def test_a_moving_shadow_is_not_mixed_in():
    light = np.ones((H, W, 1))
    light[:, 80:] = 0.5
    a, b = frame(1)[0], frame(2, light=light)[0]
    weight = light_agreement(a["Combined"], b["Combined"])
    assert weight[:, :60].mean() > 0.4
    assert weight[:, 100:].max() < 0.02


def test_agreement_means_little_noise_is_trusted_more():
    """The same 3 % change of light: hidden by strong noise, seen when there is hardly any."""
    weights = [light_agreement(frame(1, noise=n)[0]["Combined"], frame(2, light=1.03, noise=n)[0]["Combined"]).mean() for n in (0.5, 0.02)]
    assert weights[0] > 0.3 and weights[1] < 0.05


@pytest.mark.parametrize(("quality", "prefilter"), [("FAST", "FAST"), ("BALANCED", "ACCURATE"), ("HIGH", "ACCURATE"), ("HIGH", "NONE")])
def test_every_recipe_cleans_a_clip(quality, prefilter):
    frames, truths = zip(*(frame(seed) for seed in range(3)), strict=True)
    for still in (True, False):
        clean = denoise_clip(frames, still, quality, prefilter, Denoiser())
        for image, noisy, truth in zip(clean, frames, truths, strict=True):
            assert error(image, truth) < 0.4 * error(noisy["Combined"], truth)


def test_rendered_still_clip_is_cleaner_than_its_frames_alone(toy):
    camera = look_at((0.7, -0.8, 0.7), (0.0, 0.0, 0.1))
    ball = thing(1, "sphere", (0.2, 0.2, 0.2), se3.make(np.eye(3), [0.3, -0.1, 0.1]), material("plastic"))

    def look(frames, samples, video):
        s = scene([ball, floor(material("fabric", bump=0.0))], [camera] * frames, toy.joints, video=video, samples_per_pixel=samples)
        return toy.render(s).rgb_linear[0]

    truth = look(1, 48, 9)
    alone, shared = (np.mean([error(look(n, 1, v), truth) ** 2 for v in range(2)]) for n in (1, 3))
    assert shared < 0.85 * alone
