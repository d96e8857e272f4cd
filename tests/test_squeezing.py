"""Squeezers against the formulas of EvadeML through scipy, ART, Pillow, and naive loops."""

import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, median_filter
from torch import nn

from nclib.defenses import squeezing
from nclib.defenses.squeezing import Squeezed, bit_depth, jpeg, jpeg_differentiable, median

SIZES = [(8, 8), (28, 28), (32, 32), (9, 13), (17, 30)]


def pictures(count=3, channels=1, size=(28, 28), seed=0, smooth=0.0):
    values = np.random.default_rng(seed).random((count, channels, *size))
    if smooth:
        values = gaussian_filter(values, (0, 0, smooth, smooth))
        values = (values - values.min()) / np.ptp(values)
    return torch.from_numpy(values).float()


@pytest.mark.parametrize("bits", range(1, 9))
def test_bit_depth_is_evademls(bits):
    images = pictures(channels=3)
    levels = 2**bits - 1
    assert np.array_equal(
        bit_depth(images, bits).numpy(),
        np.rint(images.numpy() * np.float32(levels)) / np.float32(levels),
    )
    assert len(bit_depth(images, bits).unique()) <= levels + 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [2, 3, 4, 5])
def test_median_is_scipys(size, window):
    images = pictures(channels=3, size=size)
    theirs = median_filter(images.numpy(), size=(1, 1, window, window), mode="reflect")
    assert np.array_equal(median(images, window).numpy(), theirs)


@pytest.mark.parametrize("bits", [1, 3, 5])
def test_bit_depth_agrees_with_art(bits):
    art = pytest.importorskip("art.defences.preprocessor", reason="make test installs it")
    images = pictures(channels=3)
    theirs = art.FeatureSqueezing(clip_values=(0, 1), bit_depth=bits)(images.numpy())[0]
    assert np.abs(bit_depth(images, bits).numpy() - theirs).max() < 1e-6


@pytest.mark.parametrize("window", [2, 3])
def test_median_agrees_with_art(window):
    art = pytest.importorskip("art.defences.preprocessor", reason="make test installs it")
    images = pictures(channels=3)
    theirs = art.SpatialSmoothing(window_size=window, channels_first=True)(images.numpy())[0]
    assert np.array_equal(median(images, window).numpy(), theirs)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 75, 95])
def test_jpeg_agrees_with_art(channels, quality):
    art = pytest.importorskip("art.defences.preprocessor", reason="make test installs it")
    images = bit_depth(pictures(channels=channels, smooth=1), 8)  # ART cuts, we round: exact bytes
    images = (images * 255).round() / 255 + 1e-4 * (images < 0.99)
    images = images.clamp(0, 1)
    theirs = art.JpegCompression((0, 1), quality, channels_first=True)(images.numpy())[0]
    assert np.abs(jpeg(images, quality).numpy() - theirs).max() < 1e-6


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(channels, size):
    images = pictures(2, channels, size)
    found = jpeg(images, 60)
    assert found.shape == images.shape and found.dtype == torch.float32
    pixels = (images[0] * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=60)
    back = np.asarray(Image.open(file)).reshape(*size, channels) / 255
    assert np.abs(found[0].permute(1, 2, 0).numpy() - back).max() < 1e-6


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [20, 50, 90])
def test_differentiable_jpeg_is_near_pillows(channels, size, quality):
    images = pictures(4, channels, size, smooth=1.5)
    apart = (jpeg_differentiable(images, quality) - jpeg(images, quality)).abs()
    lost = (images - jpeg(images, quality)).abs().mean()
    assert apart.mean() < (0.35 if channels == 1 else 0.4) * lost + 0.002


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_cuts_what_lies_beyond_the_ends(channels):
    images = torch.tensor([-0.5, -0.01, 1.01, 2.0])[:, None, None, None].expand(-1, channels, 8, 8)
    assert torch.equal(jpeg(images), jpeg(images.clamp(0, 1)))
    assert jpeg(images).amax((1, 2, 3)).tolist() == [0, 0, 1, 1]


def test_differentiable_jpeg_has_a_gradient():
    images = pictures(2, 3, (9, 13), smooth=1.5).mul(0.8).add(0.1).requires_grad_()
    direction = pictures(2, 3, (9, 13), seed=1)
    (jpeg_differentiable(images, 50) * direction).sum().backward()
    assert images.grad.isfinite().all() and (images.grad != 0).float().mean() > 0.95
    # where nothing is rounded, JPEG is nearly the identity, and so is its gradient
    grey = pictures(1, 1, (8, 8)).mul(0.8).add(0.1).requires_grad_()
    (jpeg_differentiable(grey, 75) * direction[:1, :1, :8, :8]).sum().backward()
    assert torch.allclose(grey.grad, direction[:1, :1, :8, :8], atol=1e-5)


def test_steps_are_libjpegs():
    file = io.BytesIO()
    for quality in (1, 10, 49, 50, 75, 100):
        file.seek(0)
        Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
        tables = Image.open(file).quantization
        for number, table in enumerate((squeezing.LUMA, squeezing.CHROMA)):
            ours = squeezing._steps(quality, table).flatten().int().tolist()
            assert ours == list(tables[number])


def naive_means(image, search, patch, strength):
    channels, height, width = image.shape
    reach, rim = search // 2, patch // 2
    wide = np.pad(image, [(0, 0)] + [(reach + rim,) * 2] * 2, mode="reflect")
    out = np.empty_like(image)

    def around(y, x):
        return wide[:, y - rim : y + rim + 1, x - rim : x + rim + 1]

    for y in range(height):
        for x in range(width):
            cy, cx = y + reach + rim, x + reach + rim
            total, weights = 0, 0
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    apart = np.square(around(cy + dy, cx + dx) - around(cy, cx)).mean()
                    weight = np.exp(-apart / strength**2)
                    total = total + weight * wide[:, cy + dy, cx + dx]
                    weights += weight
            out[:, y, x] = total / weights
    return out


@pytest.mark.parametrize("channels", [1, 3])
def test_non_local_means_is_the_definition(channels):
    images = pictures(2, channels, (9, 11))
    found = squeezing.non_local_means(images, 5, 3, 0.2)
    for image, theirs in zip(images, found, strict=True):
        naive = naive_means(image.double().numpy(), 5, 3, 0.2)
        assert np.abs(theirs.numpy() - naive).max() < 1e-5


def test_non_local_means_denoises_and_keeps_an_edge():
    clean = torch.zeros(1, 1, 20, 20)
    clean[..., 10:] = 1
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    found = squeezing.non_local_means(noisy, 13, 3, 0.1)
    assert (found - clean).square().mean() < 0.3 * (noisy - clean).square().mean()
    assert found[..., 9].max() < 0.2 and found[..., 10].min() > 0.8


def test_noise():
    images = torch.full((4, 1, 50, 50), 0.5)
    draws = [squeezing.noise(images, 0.1, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert draws[0].std() == pytest.approx(0.1, abs=0.005)
    assert squeezing.noise(images, 5.0, torch.Generator()).aminmax() == (0, 1)


ALL = {
    "bits": partial(bit_depth, bits=3),
    "median": median,
    "means": squeezing.non_local_means,
    "jpeg": jpeg,
    "jpeg_differentiable": jpeg_differentiable,
    "noise": partial(squeezing.noise, sigma=0.1, generator=torch.Generator()),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_squeezers_keep_the_contract(name, channels):
    images = pictures(2, channels, (9, 13))
    before = images.clone()
    found = ALL[name](images)
    assert found.shape == images.shape and found.dtype == torch.float32
    assert found.min() >= -1e-6 and found.max() <= 1 + 1e-6
    assert torch.equal(images, before)


class Brightness(nn.Module):
    def forward(self, images):
        light = images.mean((1, 2, 3))
        return torch.stack([light, 1 - light], 1) * 20


def test_squeezed_composes_in_order():
    images = pictures()
    model = Squeezed(Brightness(), partial(bit_depth, bits=2), median)
    assert torch.equal(model.squeeze(images), median(bit_depth(images, 2)))
    assert torch.equal(model(images), Brightness()(median(bit_depth(images, 2))))
    inner = Squeezed(Squeezed(Brightness(), median), partial(bit_depth, bits=2))
    assert torch.equal(inner(images), model(images))


def test_joint_score_is_the_largest_l1_distance():
    images, model = pictures(5), Brightness()
    squeezers = [partial(bit_depth, bits=1), median]
    expected = torch.stack(
        [(model(s(images)).softmax(1) - model(images).softmax(1)).abs().sum(1) for s in squeezers]
    )
    found = squeezing.joint_score(model, images, squeezers)
    assert torch.allclose(found, expected.max(0).values) and (found <= 2).all()
    assert squeezing.joint_score(model, images, [lambda x: x]).abs().max() == 0


def test_threshold_keeps_the_false_positives():
    scores = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    for share in (0.0, 0.05, 0.5):
        above = (scores > squeezing.threshold(scores, share)).float().mean()
        assert share - 0.002 <= above <= share
    assert (torch.ones(10) > squeezing.threshold(torch.ones(10))).sum() == 0
    ranked = torch.arange(100.0)
    for percent in range(100):  # 0.29 * 100 is a little below 29
        assert (ranked > squeezing.threshold(ranked, percent / 100)).sum() == percent
    assert squeezing.threshold(ranked, 1 - 1e-12) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: bit_depth(pictures(), 0),
        lambda: bit_depth(pictures(), 9),
        lambda: median(pictures(), 1),
        lambda: median(pictures(size=(8, 8)), 9),
        lambda: squeezing.non_local_means(pictures(), 12),
        lambda: squeezing.non_local_means(pictures(size=(7, 7))),
        lambda: squeezing.non_local_means(pictures(), strength=0),
        lambda: squeezing.noise(pictures(), -1, torch.Generator()),
        lambda: jpeg(pictures(), 0),
        lambda: jpeg(pictures(channels=2)),
        lambda: jpeg_differentiable(pictures(channels=4)),
        lambda: Squeezed(Brightness()),
        lambda: squeezing.joint_score(Brightness(), pictures(), []),
        lambda: squeezing.threshold(torch.rand(5), 1.0),
        lambda: squeezing.threshold(torch.rand(0)),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError):
        call()
