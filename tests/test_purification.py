"""Purification: the dynamics against closed forms, the washing of a whole set, the controls."""

import math

import pytest
import torch
from torch import nn

from nclib import cache, data
from nclib.defenses import purification as pure
from nclib.defenses.purification import combine, controls, diffusion
from nclib.defenses.purification.noise import BLOCK, block_generators, normal, to_signed, to_unit


@pytest.fixture(autouse=True)
def cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("NCLIB_DEVICE", "cpu")
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "runs"))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=40, shape=(1, 8, 8), seed=0):
    return torch.rand(n, *shape, generator=generator(seed))


class Quadratic(nn.Module):
    """E(x) = k |x|^2 / 2, the energy of a Gaussian of variance T / k."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, x):
        return self.k / 2 * x.square()


class GaussianNoise(nn.Module):
    """The best possible answer for data N(0, variance): E[noise | x_t], in closed form."""

    def __init__(self, variance):
        super().__init__()
        self.variance, self.model = variance, None

    def forward(self, x, t):
        left = alpha_bar_at(t)[:, None, None, None]
        return (1 - left).sqrt() / (left * self.variance + 1 - left) * x


def alpha_bar_at(t):
    """alpha_bar by its definition, independent of the package."""
    return TABLE[torch.as_tensor(t)]


BETA = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
TABLE = torch.tensor([math.prod(1 - b for b in BETA[:s]) for s in range(1001)])
ENERGY = pure.build_energy((1, 8, 8), widths=(4, 8))
COLOUR = pure.build_energy((3, 8, 8), widths=(4, 8))
DENOISER = pure.build_diffusion((1, 8, 8), width=16, t_max=20)
QUIET = {"progress": False}

# Langevin dynamics.


@pytest.mark.parametrize(("k", "eps", "temperature"), [(1.0, 0.3, 1.0), (4.0, 0.2, 0.5)])
def test_langevin_reaches_the_stationary_variance(k, eps, temperature):
    start = torch.full((20_000, 1, 1, 1), 3.0)
    walk = {"eps": eps, "temperature": temperature, "generator": generator()}
    ends = pure.langevin(start, pure.Energy(Quadratic(k)), 200, **walk)
    pull = eps**2 * k / (2 * temperature)  # x <- (1 - pull) x + eps n
    exact = eps**2 / (1 - (1 - pull) ** 2)
    assert abs(exact - temperature / k) < 0.1 * temperature / k  # near Boltzmann's T / k
    assert abs(float(ends.var()) / exact - 1) < 0.05  # five standard errors
    assert abs(float(ends.mean())) < 5 * math.sqrt(exact / 20_000)
    assert (start == 3).all()


def test_one_langevin_step_is_the_formula():
    x = to_signed(pictures(4))
    step = pure.langevin(
        x, lambda x: x.pow(3).flatten(1).sum(1), 1, generator=generator(5), eps=0.1, temperature=2.0
    )
    noise = torch.randn(x.shape, generator=generator(5))
    assert torch.allclose(step, x - 0.1**2 / 2 * 3 * x.square() / 2 + 0.1 * noise, atol=1e-6)


def test_the_step_counts_and_the_cut():
    ticks = []
    ends = pure.langevin(
        torch.zeros(3, 1, 4, 4), Quadratic(1.0), 7, generator=generator(), eps=5.0, temperature=1e9,
        cut=2.0, tick=lambda: ticks.append(1),
    )  # fmt: skip
    assert len(ticks) == 7 and ends.abs().max() == 2
    with pytest.raises(ValueError, match="^steps: got -1"):
        pure.langevin(ends, Quadratic(1.0), -1, generator=generator())


@pytest.mark.parametrize("harm", ["energy", "slope", "explosion"])
def test_energies_that_are_no_numbers_stop_with_a_clear_error(harm):
    def energy(x):
        if harm == "energy":
            return x.flatten(1).sum(1) * torch.nan
        if harm == "slope":
            return (x - x.detach()).abs().sqrt().flatten(1).sum(1)  # 0, with an infinite slope
        return x.pow(4).flatten(1).sum(1)

    with pytest.raises(pure.Diverged, match=r"^energy: not finite at Langevin step \d+ of 50; "):
        pure.langevin(torch.ones(2, 1, 2, 2), energy, 50, generator=generator(), eps=10.0)
    assert issubclass(pure.Diverged, ValueError)


def test_a_broken_model_stops_the_purification():
    broken = pure.build_energy((1, 8, 8), widths=(4,))
    broken.net[-1].bias.data.fill_(torch.nan)
    with pytest.raises(pure.Diverged, match="not finite at Langevin step 1 of 3"):
        pure.purify(pictures(4), broken, steps=3, **QUIET)
    broken = pure.build_diffusion((1, 8, 8), width=4)
    broken.net.start.first.weight.data.fill_(torch.inf)
    with pytest.raises(pure.Diverged, match="noise at t = 3 is not finite"):
        pure.purify(pictures(4), broken, t=3, **QUIET)


# Training an energy.


def test_the_seed_fixes_the_training_of_an_energy():
    runs = []
    for seed in (0, 0, 1):
        model = pure.build_energy((1, 8, 8), widths=(8,))
        runs.append(pure.train_energy(model, pictures(), updates=6, steps=3, seed=seed, **QUIET))
    first, again, other = runs
    assert first.history == again.history and first.history != other.history
    assert torch.equal(first.model.net[0].weight, again.model.net[0].weight)
    assert [len(column) for column in first.history.values()] == [6] * 3
    assert first.diverged is None and not first.model.diverged and not first.model.training


def test_an_energy_learns_to_tell_data_from_noise():
    images = data.load("digits", n_train=300)[0].images
    model = pure.build_energy((1, 8, 8), widths=(16, 32))
    pure.train_energy(model, images, updates=200, steps=10, lr=1e-3, **QUIET)
    own, noise = (pure.energies(x, model) for x in (images, pictures(300)))
    assert (own[:, None] < noise).float().mean() > 0.8  # 0.46 before training


def test_a_diverging_energy_is_reported_and_refused(tmp_path):
    model = pure.build_energy((1, 8, 8), widths=(4, 8))
    with pytest.warns(RuntimeWarning, match=r"the energy diverged: the gap .* at update \d+ of 40"):
        run = pure.train_energy(
            model, pictures(64), updates=40, steps=2, lr=1.0, regulariser=0.0, **QUIET
        )
    assert run.diverged == len(run.history["gap"]) < 40 and model.diverged
    assert not abs(run.history["gap"][-1]) <= 1e3
    with pytest.raises(ValueError, match="^model: this energy diverged in training"):
        pure.purify(pictures(4), model, steps=1, **QUIET)
    with pytest.raises(ValueError, match="^model: this energy diverged in training"):
        pure.save(model, tmp_path / "x.safetensors")


def test_a_nan_in_training_is_a_divergence_too():
    model = pure.build_energy((1, 8, 8), widths=(4,))
    model.net[-1].bias.data.fill_(torch.nan)
    with pytest.warns(RuntimeWarning, match="gap between data and samples is nan at update 1"):
        assert pure.train_energy(model, pictures(), updates=3, steps=1, **QUIET).diverged == 1


@pytest.mark.parametrize(
    "wrong",
    [{"updates": 0}, {"batch_size": 0}, {"bank_size": 8}, {"rejuvenate": 2}, {"regulariser": -1}],
)
def test_training_refuses_bad_numbers(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}"):
        pure.train_energy(ENERGY, pictures(), **wrong, **QUIET)
    with pytest.raises(ValueError, match="^images: "):
        pure.train_energy(ENERGY, pictures() * 2, **QUIET)


# Diffusion.


def test_the_forward_marginals_are_right():
    model = pure.Diffusion(nn.Identity(), t_max=1000)
    assert torch.allclose(
        model.alpha_bar[[1, 75, 250, 1000]], alpha_bar_at([1, 75, 250, 1000]), rtol=1e-3
    )
    assert abs(math.sqrt(1 - model.alpha_bar[75]) - 0.25) < 0.005  # the noise at the paper's t
    x = torch.full((40_000, 1, 1, 1), 0.7)
    for t in (1, 75, 250):
        out = diffusion.noised(x, model, t, torch.randn(x.shape, generator=generator(t)))
        left = float(alpha_bar_at([t]))
        assert abs(float(out.mean()) - 0.7 * math.sqrt(left)) < 5 * math.sqrt((1 - left) / 40_000)
        assert abs(float(out.var()) / (1 - left) - 1) < 0.05
    assert torch.equal(diffusion.noised(x, model, 0, torch.randn(x.shape)), x)


def test_times_differ_within_a_batch():
    model = pure.Diffusion(nn.Identity())
    x, noise = torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    out = diffusion.noised(x, model, torch.tensor([0, 10, 200]), noise)
    assert torch.allclose(out[:, 0, 0, 0], alpha_bar_at([0, 10, 200]).sqrt(), rtol=1e-4)


@pytest.mark.parametrize("variance", [0.04, 1.0])
def test_with_the_perfect_denoiser_the_reverse_returns_the_data_distribution(variance):
    model = pure.Diffusion(GaussianNoise(variance), t_max=250)
    x = math.sqrt(variance) * torch.randn(8_000, 1, 1, 1, generator=generator())
    noise = torch.randn(x.shape, generator=generator(1))
    start = diffusion.noised(x, model, 250, noise)
    ends = diffusion.reverse(start, model, 250, generator=generator(2))
    assert abs(float(ends.var()) / variance - 1) < 0.08
    assert abs(float(ends.mean())) < 0.06 * math.sqrt(variance)


def test_the_seed_fixes_the_training_of_a_denoiser():
    first, again, other = (
        pure.train_diffusion(
            pure.build_diffusion((1, 8, 8), width=8), pictures(), updates=5, seed=s, **QUIET
        ).history["loss"]
        for s in (0, 0, 1)
    )
    assert first == again and first != other


def test_a_denoiser_learns():
    images = data.load("digits", n_train=200)[0].images
    model = pure.build_diffusion((1, 8, 8), width=8)
    loss = pure.train_diffusion(model, images, updates=60, lr=5e-3, **QUIET).history["loss"]
    assert sum(loss[-20:]) / 20 < 0.9  # to answer "no noise" costs 1


def test_a_loss_that_is_no_number_stops_the_training():
    with pytest.raises(pure.Diverged, match=r"the loss became \w+ at update \d+ of 50; lower lr"):
        pure.train_diffusion(
            pure.build_diffusion((1, 8, 8), width=8),
            pictures(),
            updates=50,
            lr=1e30,
            **QUIET,
        )


# Purifying a set.

WAYS = {
    "energy": lambda x, **o: pure.purify(x, ENERGY, steps=4, **o),
    "diffusion": lambda x, **o: pure.purify(x, DENOISER, t=4, **o),
    "naive": lambda x, **o: pure.naive(x, ENERGY, DENOISER, steps=3, t=3, **o),
    "reps": lambda x, **o: pure.reps(x, ENERGY, DENOISER, steps=2, t=2, repetitions=2, **o),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@ways
def test_the_result_keeps_the_contract(way):
    images = pictures(37)
    before = images.clone()
    modes, weights = ENERGY.training, [p.clone() for p in ENERGY.parameters()]
    out = way(images, **QUIET)
    assert out.shape == images.shape and out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1 and not torch.equal(out, images)
    assert torch.equal(images, before) and not out.requires_grad
    assert ENERGY.training == modes and all(p.grad is None for p in ENERGY.parameters())
    assert all(map(torch.equal, weights, ENERGY.parameters()))


@ways
def test_the_seed_reproduces(way):
    images = pictures(20)
    first, again, other = (way(images, seed=seed, **QUIET) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


@ways
def test_chunks_do_not_change_the_result(way):
    images = pictures(70)
    whole = way(images, chunk=1000, **QUIET)
    for chunk in (1, 32, 64):
        assert torch.allclose(way(images, chunk=chunk, **QUIET), whole, atol=1e-5)


@ways
def test_nothing_shows_without_progress_and_a_full_bar_with_it(way, capsys):
    way(pictures(20), **QUIET)
    assert capsys.readouterr().err == ""
    way(pictures(20), chunk=16)
    assert "purifying: 100%" in capsys.readouterr().err


def test_no_strength_is_the_identity():
    images = pictures(20)
    outs = [
        pure.purify(images, ENERGY, steps=0, **QUIET),
        pure.purify(images, DENOISER, t=0, **QUIET),
        pure.naive(images, ENERGY, DENOISER, steps=0, t=0, **QUIET),
    ]
    for out in outs:
        assert torch.equal(out, images) and out.data_ptr() != images.data_ptr()
    assert torch.allclose(to_unit(to_signed(images)), images, atol=1e-6)


def test_the_combinations_are_made_of_their_parts():
    images = pictures(20)
    energy = pure.purify(images, ENERGY, steps=4, **QUIET)
    assert torch.equal(pure.naive(images, ENERGY, DENOISER, steps=4, t=0, **QUIET), energy)
    denoised = pure.purify(images, DENOISER, t=4, **QUIET)
    assert torch.equal(pure.naive(images, ENERGY, DENOISER, steps=0, t=4, **QUIET), denoised)
    twice = {"steps": 2, "t": 0, "repetitions": 2}
    assert torch.equal(pure.reps(images, ENERGY, DENOISER, **twice, **QUIET), energy)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 14, 11), (3, 33, 20), (3, 5, 5)])
def test_any_size_with_one_or_three_channels(shape):
    images = pictures(5, shape)
    energy = pure.build_energy(shape, widths=(4, 8))
    denoiser = pure.build_diffusion(shape, width=8)
    out = pure.naive(images, energy, denoiser, steps=2, t=2, **QUIET)
    assert out.shape == images.shape and out.isfinite().all()


def test_a_purifier_takes_other_sizes_and_no_other_channels():
    assert pure.purify(pictures(3, (1, 13, 9)), ENERGY, steps=1, **QUIET).shape == (3, 1, 13, 9)
    assert pure.purify(pictures(3, (1, 9, 9)), DENOISER, t=1, **QUIET).shape == (3, 1, 9, 9)
    with pytest.raises(ValueError, match=r"^images: got 1 channel.*built for 3"):
        pure.purify(pictures(3), COLOUR, steps=1, **QUIET)


def test_a_chunk_is_bounded_by_the_pixels():
    sizes = [combine._chunk_size(torch.zeros(1, 3, s, s), None) for s in (8, 32, 64, 224, 2000)]
    assert (
        sizes == [8192, 512, 128, 16, 16] and combine._chunk_size(torch.zeros(1, 3, 8, 8), 17) == 32
    )


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda x: pure.purify(x, ENERGY), "steps, t: got None, None; Energy needs steps"),
        (lambda x: pure.purify(x, ENERGY, t=3), "steps, t: got None, 3; Energy needs steps"),
        (lambda x: pure.purify(x, DENOISER, steps=3), "steps, t: got 3, None; Diffusion needs t"),
        (lambda x: pure.purify(x, ENERGY, steps=1, t=1), "steps, t: got 1, 1"),
        (lambda x: pure.purify(x, ENERGY, steps=-1), "steps: got -1"),
        (lambda x: pure.purify(x, ENERGY, steps=1.5), "steps: got 1.5"),
        (lambda x: pure.purify(x, DENOISER, t=21), r"t: got 21; .* 0 to 20"),
        (lambda x: pure.purify(x, DENOISER, t=-1), "t: got -1"),
        (lambda x: pure.purify(x, nn.Identity(), t=1), "model: got Identity"),
        (lambda x: pure.purify(x, ENERGY, steps=1, chunk=0), "chunk: got 0"),
        (lambda x: pure.purify(x * 2, ENERGY, steps=1), r"images: values run from .*\[0, 1\]"),
        (lambda x: pure.purify(x.double(), ENERGY, steps=1), "images: got torch.float64"),
        (lambda x: pure.purify(x[:0], ENERGY, steps=0), "images: got no image"),
        (lambda x: pure.reps(x, ENERGY, DENOISER, repetitions=0), "repetitions: got 0"),
        (lambda x: pure.energies(x, DENOISER), "model: got Diffusion"),
        (lambda x: pure.build_energy((1, 8, 8), eps=0), "eps, temperature: got 0"),
        (lambda x: pure.Diffusion(nn.Identity(), t_max=1001), "t_max: got 1001"),
    ],
)
def test_bad_input_is_named(call, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}"):
        call(pictures(4))


def test_noise_depends_on_seed_and_place_alone():
    x = torch.zeros(40, 1, 2, 2)
    whole = normal(x, block_generators(7, 0, 40, x.device))
    later = normal(x[16:], block_generators(7, 16, 24, x.device))
    assert torch.equal(whole[16:], later)
    blocks = [*whole[:32].split(BLOCK), normal(x[:BLOCK], block_generators(8, 0, BLOCK, x.device))]
    assert not any(torch.equal(a, b) for a in blocks for b in blocks if a is not b)


# Weights as files.


def test_weights_come_back_from_a_small_file(tmp_path):
    shape = (1, 14, 14)
    models = [pure.build_energy(shape), pure.build_diffusion(shape)]
    images = pictures(6, shape)
    for model in models:
        path = tmp_path / f"{type(model).__name__}.safetensors"
        pure.save(model, path, seed=3, data="mnist")
        assert path.stat().st_size < 500_000
        loaded, made = pure.load(path)
        assert made == {"seed": 3, "data": "mnist"} and loaded.recipe == model.recipe
        assert next(loaded.parameters()).dtype == torch.float32 and not loaded.training
        name = "steps" if isinstance(model, pure.Energy) else "t"
        before, after = (pure.purify(images, m, **{name: 3}, **QUIET) for m in (model, loaded))
        assert torch.allclose(before, after, atol=1e-2)


def test_files_that_are_no_purifiers_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="^path: .*make purifiers"):
        pure.load(tmp_path / "none.safetensors")
    cache.save(tmp_path / "other.safetensors", {"x": torch.zeros(2)}, {"seconds": 1})
    with pytest.raises(ValueError, match="holds no purifier"):
        pure.load(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="^model: only what build_"):
        pure.save(pure.Diffusion(nn.Identity()), tmp_path / "x.safetensors")
    (tmp_path / "thesis.txt").write_text("only copy")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for name in ("thesis.txt", "other.safetensors"):  # a path typed wrong empties nothing
        with pytest.raises(ValueError, match="^path: .* holds no purifier"):
            pure.save(ENERGY, tmp_path / name)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_good_file_outlives_a_save_that_fails(tmp_path, monkeypatch):
    path, seen = tmp_path / "x.safetensors", []
    pure.save(ENERGY, path, seed=1)
    before = path.read_bytes()

    def full(*_):
        seen.append(path.read_bytes() == before)
        raise OSError("no space left on device")

    monkeypatch.setattr(cache, "save_file", full)
    with (
        pytest.warns(UserWarning, match="no space"),
        pytest.raises(OSError, match="^path: .*x.safe"),
    ):
        pure.save(ENERGY, path, seed=2)
    assert seen == [True] and path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# What a purifier has to beat, and what a patch is.


def test_a_net_of_patches_sees_every_pixel_once():
    net = pure.build_diffusion((3, 8, 12), width=8, patch=2)
    assert net.recipe["patch"] == 2 and net.net.patch == 2
    images = pictures(2, (3, 8, 12)) * 2 - 1
    out = net(images, torch.tensor([5, 9]))
    assert out.shape == images.shape
    for place in ((0, 0), (3, 5), (7, 11)):  # each pixel's own answer depends on it
        moved = images.clone()
        moved[:, :, place[0], place[1]] += 1
        changed = (net(moved, torch.tensor([5, 9])) - out).abs()
        assert float(changed[:, :, place[0], place[1]].min().detach()) > 0
    pure.train_diffusion(net, pictures(8, (3, 8, 12)), updates=2, batch_size=4, **QUIET)


def test_a_gain_multiplies_the_energy_and_comes_back(tmp_path):
    images = pictures(4)
    low, high = (pure.build_energy((1, 8, 8), widths=(4, 8), gain=g) for g in (1, 16))
    assert torch.allclose(16 * pure.energies(images, low), pure.energies(images, high), rtol=1e-5)
    pure.save(high, tmp_path / "x.safetensors")
    again = pure.load(tmp_path / "x.safetensors")[0]
    assert torch.allclose(pure.energies(images, again), pure.energies(images, high), rtol=1e-2)


def test_hidden_pixels_come_from_their_neighbours():
    images = torch.full((3, 3, 6, 6), 0.4)
    assert torch.allclose(controls.hidden(images), images)  # nothing to tell them apart
    assert torch.equal(controls.hidden(pictures(3), 0.0), pictures(3))
    out = controls.hidden(pictures(20, (3, 9, 9)), 0.5, seed=1)
    same = (out == pictures(20, (3, 9, 9))).all(1)
    assert 0.4 < float(same.float().mean()) < 0.6  # all channels of a pixel together


def test_the_main_axes_keep_their_images_and_lose_the_rest():
    draw = generator()
    basis = torch.rand(4, 1, 6, 6, generator=draw)
    others = torch.einsum("nk,kchw->nchw", torch.rand(200, 4, generator=draw) / 4, basis)
    wash = controls.main_axes(others, 4)
    assert torch.allclose(wash(others[:5]), others[:5], atol=1e-4)
    noisy = (others[:50] + 0.1 * torch.randn(50, 1, 6, 6, generator=draw)).clamp(0, 1)
    assert (wash(noisy) - others[:50]).square().mean() < (noisy - others[:50]).square().mean() / 3
    for wrong in (0, 37):
        with pytest.raises(ValueError, match=f"^count: got {wrong}"):
            controls.main_axes(others, wrong)


def test_the_contrast_is_the_length_of_the_pattern_over_the_noise():
    pattern = 0.05 * torch.randn(3, 8, 8, generator=generator())
    clean = 0.5 + 0.2 * torch.randn(4000, 3, 8, 8, generator=generator(1))
    found = controls.contrast(clean, clean + pattern, pattern)
    assert found == pytest.approx(float(pattern.norm()) / 0.2, rel=0.05)
    assert controls.contrast(clean, clean, pattern) == 0
    with pytest.raises(ValueError, match="^pattern: got zeros"):
        controls.contrast(clean, clean, 0 * pattern)
