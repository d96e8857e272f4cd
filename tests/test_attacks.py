"""Attacks: equal to their peers, inside their bounds, and without a trace on the model."""

import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nclib import attacks, data
from nclib.attacks import (
    bpda,
    cw_l2,
    eot,
    fgsm,
    margin_pgd,
    masking_report,
    pgd,
    robustness,
    square,
    transfer,
)

EPS = 0.15


def small_cnn(channels=1):
    layers = [nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.1), nn.Linear(512, 10))


def fitted(images, labels, seed, epochs=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = small_cnn()
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(epochs):
            for index in torch.randperm(len(images)).split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(images[index]), labels[index]).backward()
                optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def golden():
    """A small CNN on the digits, a second one, and 64 test images that both label right."""
    train, test = data.load("digits", device="cpu")
    model, other = (fitted(train.images, train.labels, seed) for seed in (0, 1))
    right = hits(model, test.images, test.labels) & hits(other, test.images, test.labels)
    assert right.float().mean() > 0.95
    test = test.subset(right).subset(torch.arange(64))
    return SimpleNamespace(model=model, other=other, x=test.images, y=test.labels)


@torch.no_grad()
def hits(model, images, labels):
    return model(images).argmax(1) == labels


def share(model, images, labels):
    return hits(model, images, labels).float().mean().item()


class Scaled(nn.Module):
    """Logits so large that the softmax is flat: the gradient of the loss underflows to 0."""

    def __init__(self, model, factor=1e4):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, images):
        return self.model(images) * self.factor


def quantise(images):
    """Two bits: no gradient anywhere."""
    return (images * 3).round() / 3


class Quantised(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(quantise(images))


class Jittery(nn.Module):
    """A random defence: the logits stay, but a new random slope at every pass hides theirs."""

    def __init__(self, model, size=8.0):
        super().__init__()
        self.model, self.size = model, size
        self.draw = torch.Generator().manual_seed(0)

    def forward(self, images):
        logits = self.model(images)
        slope = torch.randn(images[0].numel(), logits.shape[1], generator=self.draw)
        return logits + (images - images.detach()).flatten(1) @ (self.size * slope)


EVERY = {
    "fgsm": fgsm,
    "pgd": functools.partial(pgd, steps=5, restarts=2),
    "pgd_l2": functools.partial(pgd, steps=5, norm="L2"),
    "margin_pgd": functools.partial(margin_pgd, steps=5),
    "margin_pgd_l2": functools.partial(margin_pgd, steps=5, norm="L2"),
    "square": functools.partial(square, queries=20),
}
ALL = EVERY | {"cw_l2": lambda model, x, y, eps, **kw: cw_l2(model, x, y, steps=20, lr=0.1, **kw)}


# The peers.


def foolbox(golden, name, eps, **options):
    fb = pytest.importorskip("foolbox", reason="make test installs it")
    wrapped = fb.PyTorchModel(golden.model, bounds=(0, 1))
    run = getattr(fb.attacks, name)(**options).run
    return run(wrapped, golden.x, golden.y, **({} if eps is None else {"epsilon": eps}))


def art(golden, name, **options):
    evasion = pytest.importorskip("art.attacks.evasion", reason="make test installs it")
    from art.estimators.classification import PyTorchClassifier

    shape = tuple(golden.x.shape[1:])
    wrapped = PyTorchClassifier(
        golden.model, nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 1), device_type="cpu"
    )
    attack = getattr(evasion, name)(wrapped, batch_size=len(golden.x), **options)
    return torch.from_numpy(attack.generate(golden.x.numpy(), golden.y.numpy()))


def test_fgsm_equals_its_peers(golden):
    ours = fgsm(golden.model, golden.x, golden.y, EPS)
    assert torch.equal(ours, foolbox(golden, "LinfFastGradientAttack", EPS, random_start=False))
    assert torch.equal(ours, art(golden, "FastGradientMethod", eps=EPS))


def test_pgd_linf_equals_its_peers(golden):
    ours = pgd(golden.model, golden.x, golden.y, EPS, 0.02, 15, random_start=False)
    options = {"steps": 15, "abs_stepsize": 0.02, "random_start": False}
    assert torch.equal(ours, foolbox(golden, "LinfPGD", EPS, **options))
    options = {"eps": EPS, "eps_step": 0.02, "max_iter": 15, "verbose": False}
    assert torch.equal(ours, art(golden, "ProjectedGradientDescent", **options))


def test_pgd_l2_equals_foolbox(golden):
    ours = pgd(golden.model, golden.x, golden.y, 1.0, 0.2, 15, "L2", random_start=False)
    options = {"steps": 15, "abs_stepsize": 0.2, "random_start": False}
    theirs = foolbox(golden, "L2PGD", 1.0, **options)
    assert (ours - theirs).abs().max() <= 1e-6


def test_torchattacks_agrees(golden):
    """torchattacks pins an old requests; `make test` installs it without what it depends on."""
    peer = pytest.importorskip("torchattacks", reason="make test installs it")
    ours = fgsm(golden.model, golden.x, golden.y, EPS)
    assert torch.equal(ours, peer.FGSM(golden.model, eps=EPS)(golden.x, golden.y))
    ours = pgd(golden.model, golden.x, golden.y, EPS, 0.02, 15, random_start=False)
    theirs = peer.PGD(golden.model, eps=EPS, alpha=0.02, steps=15, random_start=False)
    assert torch.equal(ours, theirs(golden.x, golden.y))


def test_cw_is_as_near_as_foolbox(golden):
    golden = SimpleNamespace(model=golden.model, x=golden.x[:24], y=golden.y[:24])
    ours = cw_l2(golden.model, golden.x, golden.y, steps=400)
    theirs = foolbox(golden, "L2CarliniWagnerAttack", None, steps=400)
    assert theirs.flatten(1).amax(1).all()  # foolbox marks a failure by a black image
    assert share(golden.model, ours, golden.y) == share(golden.model, theirs, golden.y) == 0
    ours, theirs = ((z - golden.x).flatten(1).norm(dim=1).mean() for z in (ours, theirs))
    assert ours <= 1.03 * theirs


# What every attack keeps to.


@pytest.mark.parametrize("name", EVERY)
def test_eps_zero_is_the_identity(golden, name):
    same = EVERY[name](golden.model, golden.x, golden.y, 0)
    assert torch.equal(same, golden.x) and same is not golden.x


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("eps", [0.05, 0.3, 1.0])
def test_the_bounds_hold(golden, name, eps):
    """Also for images that touch neither 0 nor 1, and for three colours."""
    x = torch.rand(7, 3, 9, 6, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(162, 16), nn.ReLU(), nn.Linear(16, 4))
    for images, labels, victim in (
        (golden.x, golden.y, golden.model),
        (x, torch.arange(7) % 4, model),
    ):
        attacked = EVERY[name](victim, images, labels, eps, batch_size=30)
        delta = (attacked - images).flatten(1)
        size = delta.norm(dim=1) if name.endswith("l2") else delta.abs().amax(1)
        assert size.max() <= eps + 1e-6
        assert attacked.min() >= 0 and attacked.max() <= 1
        assert attacked.dtype == torch.float32 and attacked.shape == images.shape
        assert not attacked.requires_grad and attacked.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_the_attack_works_and_the_target_is_reached(golden, name):
    few = golden.x[:24], golden.y[:24]
    eps = 3.0 if name.endswith("l2") else 0.4
    strong = {"steps": 25} if "pgd" in name else {"queries": 150} if name == "square" else {}
    attacked = ALL[name](golden.model, *few, eps, **strong) if strong else None
    if attacked is None:
        attacked = ALL[name](golden.model, *few, eps)
    assert share(golden.model, attacked, few[1]) < 0.35
    targets = (few[1] + 1) % 10
    before = share(golden.model, few[0], targets)
    attacked = ALL[name](golden.model, *few, eps, targets=targets, **strong)
    assert share(golden.model, attacked, targets) > before + 0.2


@pytest.mark.parametrize("name", ["pgd", "pgd_l2", "margin_pgd", "square"])
def test_randomness_is_explicit(golden, name):
    few = golden.x[:8], golden.y[:8], EPS
    state = torch.get_rng_state()
    once, again, other = (EVERY[name](golden.model, *few, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(once, again) and not torch.equal(once, other)
    drawn = EVERY[name](golden.model, *few, generator=torch.Generator().manual_seed(3))
    assert torch.equal(once, drawn)


def test_batches_change_nothing(golden):
    for attack in (fgsm, functools.partial(pgd, steps=5, random_start=False)):
        whole = attack(golden.model, golden.x, golden.y, EPS)
        parts = attack(golden.model, golden.x, golden.y, EPS, batch_size=10)
        assert (whole != parts).float().mean() < 0.01  # a sign near 0 may turn with the batch


@pytest.mark.parametrize("attack", [pgd, margin_pgd])
def test_restarts_are_never_worse(golden, attack):
    held = torch.ones(len(golden.x), dtype=torch.bool)
    for restarts in (1, 2, 5):
        options = {"steps": 4, "restarts": restarts, "batch_size": 20}
        attacked = attack(golden.model, golden.x, golden.y, 0.12, **options)
        now = hits(golden.model, attacked, golden.y)
        assert not (now & ~held).any()
        held = now
    assert held.any() and not held.all()  # the comparison was not empty


def test_more_steps_and_a_larger_eps_help(golden):
    few = golden.model, golden.x, golden.y
    falling = [share(few[0], pgd(*few, eps, steps=20), few[2]) for eps in (0.02, 0.1, 0.2, 0.5)]
    assert falling == sorted(falling, reverse=True) and falling[0] > 0.8 and falling[-1] == 0
    one, many = fgsm(*few, 0.1), pgd(*few, 0.1, steps=20)
    assert share(few[0], many, few[2]) <= share(few[0], one, few[2])


# Carlini and Wagner.


def test_cw_reaches_its_margin(golden):
    few = golden.x[:16], golden.y[:16]
    for kappa in (0.0, 3.0):
        attacked = cw_l2(golden.model, *few, kappa=kappa, steps=60, lr=0.05)
        with torch.no_grad():
            margin = attacks.margin(golden.model(attacked), few[1])
        assert margin.min() >= kappa - 1e-4 and margin.median() < kappa + 0.5


def test_cw_returns_what_it_need_not_or_cannot_change(golden):
    x, wrong = golden.x[:6], (golden.y[:6] + 1) % 10
    assert torch.equal(cw_l2(golden.model, x, wrong, steps=5), x)  # wrong already
    stone = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(stone[1].weight)
    stone[1].bias.data = torch.eye(10)[0]
    labels = torch.zeros(6, dtype=torch.int64)
    assert torch.equal(cw_l2(stone, x, labels, steps=20), x)  # nothing helps


def test_cw_takes_a_whole_number_as_c(golden):
    few = golden.x[:4], golden.y[:4]
    whole, decimal = (cw_l2(golden.model, *few, steps=10, lr=0.05, c=c) for c in (1, 1.0))
    assert torch.equal(whole, decimal)


# Ways around a defence.


def test_the_margin_escapes_masked_gradients(golden):
    masked = Scaled(golden.model)
    assert share(masked, pgd(masked, golden.x, golden.y, EPS, steps=20), golden.y) > 0.9
    broken = margin_pgd(masked, golden.x, golden.y, EPS, steps=20)
    honest = margin_pgd(golden.model, golden.x, golden.y, EPS, steps=20)
    assert share(masked, broken, golden.y) < 0.5
    assert abs(share(masked, broken, golden.y) - share(golden.model, honest, golden.y)) < 0.1
    shot = square(masked, golden.x, golden.y, EPS, queries=300)
    assert share(masked, shot, golden.y) < 0.6
    near = cw_l2(masked, golden.x[:16], golden.y[:16], steps=60, lr=0.05)
    assert share(masked, near, golden.y[:16]) == 0


def test_bpda_passes_a_quantisation(golden):
    defended = Quantised(golden.model)
    clean = share(defended, golden.x, golden.y)
    blind = share(defended, pgd(defended, golden.x, golden.y, 0.3, steps=20), golden.y)
    through = bpda(golden.model, quantise)
    assert torch.equal(through(golden.x), defended(golden.x))
    attacked = pgd(through, golden.x, golden.y, 0.3, steps=20)
    assert clean > 0.9 and blind > 0.5
    assert share(defended, attacked, golden.y) < 0.2
    stand_in = bpda(golden.model, quantise, lambda x: (x - 0.5) * 0.9 + 0.5)
    attacked = pgd(stand_in, golden.x, golden.y, 0.3, steps=20)
    assert share(defended, attacked, golden.y) < 0.2
    with pytest.raises(ValueError, match="stand-in"):
        bpda(golden.model, lambda x: x[:, :, ::2])(golden.x)


def test_eot_is_the_mean_and_passes_a_random_defence(golden):
    jittery = Jittery(golden.model)
    assert torch.equal(hits(jittery, golden.x, golden.y), hits(golden.model, golden.x, golden.y))

    def held(victim):
        return share(jittery, fgsm(victim, golden.x, golden.y, EPS), golden.y)

    assert held(jittery) > 0.8
    assert held(eot(jittery, 100)) < 0.5
    assert torch.allclose(eot(golden.model, 5)(golden.x), golden.model(golden.x), atol=1e-5)
    with pytest.raises(ValueError, match="samples: got 0"):
        eot(jittery, 0)


def test_transfer_never_asks_the_model(golden):
    asked = []
    hook = golden.model.register_forward_hook(lambda *_: asked.append(1))
    attacked = transfer(golden.model, golden.x, golden.y, 0.3, surrogate=golden.other, steps=20)
    hook.remove()
    assert not asked
    assert share(golden.other, attacked, golden.y) == 0
    assert share(golden.model, attacked, golden.y) < 0.5
    both = [golden.other, golden.model]
    attacked = transfer(golden.model, golden.x, golden.y, 0.3, surrogate=both, attack=fgsm)
    assert share(golden.model, attacked, golden.y) < 0.7


@pytest.mark.parametrize(
    "surrogate, came",
    [([], "nothing"), (fgsm, "function"), ([nn.Identity(), fgsm], "Identity, fu")],
)
def test_transfer_needs_a_surrogate(golden, surrogate, came):
    with pytest.raises(ValueError, match=f"^surrogate: got {came}"):
        transfer(golden.model, golden.x[:4], golden.y[:4], 0.3, surrogate=surrogate)


# The table and the checklist.


def test_the_table(golden):
    names = {"FGSM": fgsm, "PGD": functools.partial(pgd, steps=10)}
    names["C&W"] = functools.partial(cw_l2, steps=30)
    table = robustness(golden.model, golden.x, golden.y, names, eps=(0, 0.1, 0.3))
    assert list(table.columns) == ["attack", "eps", "accuracy"] and len(table) == 12
    wide = table.pivot(index="eps", columns="attack", values="accuracy")
    assert (wide.loc[0.0] == 1).all()
    assert (wide.diff().dropna() <= 0.02).all(axis=None)
    assert (wide["worst case"] <= wide.drop(columns="worst case").min(axis=1) + 1e-9).all()
    direct = fgsm(golden.model, golden.x, golden.y, 0.1)
    assert wide.loc[0.1, "FGSM"] == pytest.approx(share(golden.model, direct, golden.y))


class Undifferentiable(Quantised):
    def forward(self, images):
        return super().forward(images).detach()


@pytest.fixture(scope="module")
def checklist(golden):
    def flags(model):
        few = golden.x[:48], golden.y[:48]
        report = masking_report(model, *few, EPS, steps=20, queries=150, samples=20)
        assert list(report.columns) == ["check", "share", "flag", "means"] and len(report) == 6
        return report.set_index("check")

    return flags


def test_the_checklist_trusts_an_honest_model(golden, checklist):
    assert not checklist(golden.model)["flag"].any()


@pytest.mark.parametrize("defence", [Scaled, Quantised, Undifferentiable])
def test_the_checklist_finds_masked_gradients(golden, checklist, defence):
    report = checklist(defence(golden.model))
    assert report.loc["zero gradients", "share"] > 0.9
    assert report.loc["unbounded eps does not reach 0", "flag"]
    assert report.loc["black box beats white box", "flag"]


def test_the_checklist_finds_a_single_step_that_wins(golden, checklist):
    """A model whose slope is honest at the data and points inwards everywhere else."""

    class Trap(nn.Module):
        def __init__(self, model, images):
            super().__init__()
            self.model, self.images = model, images

        def forward(self, x):
            logits = self.model(x)
            at_home = torch.cdist(x.flatten(1), self.images.flatten(1)).amin(1) < 1e-3
            turned = 2 * logits.detach() - logits
            return torch.where(at_home[:, None], logits, turned)

    report = checklist(Trap(golden.model, golden.x))
    assert report.loc["one step beats many", "flag"]
    assert report.loc["random points find what gradients miss", "share"] >= 0


# No trace on the model.


class Counting(nn.Module):
    """Writes to its buffers at every pass, one in place and one by assignment."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("last", torch.zeros(1))

    def forward(self, images):
        self.passes += 1
        self.last = images.detach().mean().reshape(1)
        return self.model(images)


def traces(model):
    return (
        [module.training for module in model.modules()],
        [(p.requires_grad, p.clone(), p.grad.clone()) for p in model.parameters()],
        [b.clone() for b in model.buffers()],
    )


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.fixture
def odd(golden):
    """Partly training, partly frozen, with gradients: a state worth keeping."""
    inner = small_cnn()
    inner.load_state_dict(golden.model.state_dict())
    model = Counting(inner)
    model.train()
    inner[3].eval()
    inner[0].weight.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    return model


@pytest.mark.parametrize("name", [*ALL, "robustness", "masking_report"])
def test_the_model_is_left_as_found(golden, odd, name):
    calls = ALL | {
        "robustness": lambda model, x, y, eps: robustness(model, x, y, {"FGSM": fgsm}, (0, eps)),
        "masking_report": functools.partial(masking_report, steps=2, queries=5, samples=2),
    }
    before, images = traces(odd), golden.x[:6].clone()
    calls[name](odd, images, golden.y[:6], EPS)
    assert same(traces(odd), before)
    assert torch.equal(images, golden.x[:6])


@pytest.mark.parametrize("name", ALL)
def test_the_model_is_left_as_found_after_an_error(golden, odd, name):
    before, passes = traces(odd), []

    def fail(*_):
        passes.append(1)
        if len(passes) > 3:
            raise KeyError("in the middle")

    hook = odd.model[4].register_forward_hook(fail)
    with pytest.raises(KeyError):
        for _ in range(4):  # FGSM alone makes two passes
            ALL[name](odd, golden.x[:6], golden.y[:6], EPS)
    hook.remove()
    assert same(traces(odd), before)


# Refusals.


def nan(x):
    return torch.where(torch.arange(8) == 3, torch.nan, x)


BAD_DATA = {
    "NaN": (lambda x, y: (nan(x), y), "images: values"),
    "out of range": (lambda x, y: (x * 255, y), "images: values"),
    "one image without batch": (lambda x, y: (x[0], y), "images: got"),
    "float64": (lambda x, y: (x.double(), y), "images: got"),
    "no image": (lambda x, y: (x[:0], y[:0]), "images: got no image"),
    "three channels": (lambda x, y: (x.expand(-1, 3, -1, -1), y), "images: the model cannot take"),
    "one label short": (lambda x, y: (x, y[1:]), "labels: got"),
    "one-hot labels": (lambda x, y: (x, torch.eye(10)[y]), "labels: got"),
    "label 10": (lambda x, y: (x, y + 10), "labels: values"),
    "negative label": (lambda x, y: (x, y - 10), "labels: values"),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused(golden, name, case):
    spoil, message = BAD_DATA[case]
    with pytest.raises(ValueError, match=message):
        ALL[name](golden.model, *spoil(golden.x[:4], golden.y[:4]), EPS)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf"), "8/255", None, True])
def test_a_bad_eps_is_refused(golden, name, eps):
    with pytest.raises(ValueError, match="eps: got"):
        EVERY[name](golden.model, golden.x[:4], golden.y[:4], eps)


@pytest.mark.parametrize(
    "attack, options, message",
    [
        (fgsm, {"eps": 8}, "8/255, not 8"),
        (pgd, {"norm": "L1"}, "norm: got 'L1'"),
        (pgd, {"alpha": 0}, "alpha: got 0"),
        (pgd, {"steps": 0}, "steps: got 0"),
        (pgd, {"restarts": 1.5}, "restarts: got 1.5"),
        (pgd, {"restarts": 2, "random_start": False}, "restarts: without random_start"),
        (pgd, {"batch_size": 0}, "batch_size: got 0"),
        (pgd, {"targets": torch.arange(4) + 9}, "targets: values"),
        (pgd, {"targets": torch.arange(3)}, "targets: got"),
        (square, {"queries": 0}, "queries: got 0"),
        (square, {"p": 0}, "p: got 0"),
        (masking_report, {"eps": 0}, "eps: got 0"),
        (masking_report, {"tolerance": -1}, "tolerance: got -1"),
    ],
)
def test_bad_options_are_refused(golden, attack, options, message):
    with pytest.raises(ValueError, match=message):
        attack(golden.model, golden.x[:4], golden.y[:4], **{"eps": EPS, **options})


@pytest.mark.parametrize(
    "options", [{"kappa": -1}, {"lr": 0}, {"c": 0}, {"steps": 0}, {"search_steps": 0}]
)
def test_bad_options_of_cw_are_refused(golden, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: got"):
        cw_l2(golden.model, golden.x[:4], golden.y[:4], **options)


@pytest.mark.parametrize(
    "model, message",
    [
        (lambda x: x, "model: got function"),
        (nn.Identity(), "logits"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), "2 or more"),
    ],
)
def test_bad_models_are_refused(golden, model, message):
    with pytest.raises(ValueError, match=message):
        fgsm(model, golden.x[:4], golden.y[:4], EPS)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_lack_of_memory_is_not_blamed_on_the_images(golden, error):
    class Hungry(nn.Module):
        def forward(self, images):
            raise error

    with pytest.raises(type(error), match="memory"):
        fgsm(Hungry(), golden.x[:4], golden.y[:4], EPS)


@pytest.mark.parametrize("name", [name for name in ALL if name != "square"])
def test_a_model_without_gradient_is_named(golden, name):
    with pytest.raises(ValueError, match="bpda"):
        ALL[name](Undifferentiable(golden.model), golden.x[:4], golden.y[:4], EPS)


def test_a_table_of_nothing_is_refused(golden):
    with pytest.raises(ValueError, match="attacks: got"):
        robustness(golden.model, golden.x, golden.y, {})
    with pytest.raises(ValueError, match="eps: got -1"):
        robustness(golden.model, golden.x, golden.y, {"FGSM": fgsm}, (-1,))
