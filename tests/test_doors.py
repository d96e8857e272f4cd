"""What comes in from outside: any mode, any kind of number or array, and NaN where it is ranked."""

import copy
import inspect
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from experiments.photographs import baselines
from nclib import (
    activations,
    attacks,
    correction,
    data,
    detection,
    doors,
    explain,
    geometry,
    models,
    poisons,
    training,
)
from nclib.data import ImageSet
from nclib.defenses import adversarial_training, distillation, partition, smoothing, squeezing
from nclib.defenses import purification as wash

SHAPE = (1, 8, 8)


class Net(nn.Module):
    """A network small enough for every attack in a moment."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body, self.fc = nn.Linear(64, 12), nn.Linear(12, 4)
            nn.init.normal_(self.body.weight, std=0.3)

    def forward(self, images):
        return self.fc(torch.tanh(self.body(images.flatten(1) - 0.5)))


FIRST = nn.Conv2d(1, 1, 3, padding=1)


class Mapped(nn.Module):
    """A network of any kind behind a convolution, for what needs feature maps."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.first = net, FIRST

    def forward(self, images):
        return self.net(self.first(images))


class Nan(Net):
    def forward(self, images):
        return super().forward(images) * torch.nan


def some(count: int = 24) -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(count, *SHAPE, generator=draw, dtype=torch.float32)
    return ImageSet(images, torch.arange(count) % 4, tuple("abcd"))


def trained(made: nn.Module) -> torch.Tensor:
    return torch.cat([w.detach().flatten() for w in made.parameters()])


OTHER = Net(1)
QUICK = {"epochs": 1, "progress": False, "cache": False}
LOSSES = {
    "pgd_training": adversarial_training.pgd_training(0.1, steps=2),
    "fast_training": adversarial_training.fast_training(0.1),
    "noisy_fast_training": adversarial_training.noisy_fast_training(0.1),
    "trades": adversarial_training.trades(0.1, steps=2),
}


def fitted(train: ImageSet, **options) -> torch.Tensor:
    with torch.inference_mode(False):
        model = copy.deepcopy(OTHER)
    return trained(training.fit(model, train, **QUICK, **options).model)


def energy(train: ImageSet):
    model = wash.build_energy(SHAPE, widths=(8,))
    wash.train_energy(model, train.images, updates=2, steps=2, batch_size=8, progress=False)
    return model


def diffusion(train: ImageSet):
    model = wash.build_diffusion(SHAPE, width=8, t_max=5)
    wash.train_diffusion(model, train.images, updates=2, batch_size=8, progress=False)
    return model


# Everything public that needs a gradient: f(model, set) -> tensor
CRAFT = {
    "fgsm": lambda m, d: attacks.fgsm(m, d.images, d.labels, 0.1),
    "pgd": lambda m, d: attacks.pgd(m, d.images, d.labels, 0.1, steps=3, restarts=2),
    "pgd, targeted, L2": lambda m, d: attacks.pgd(
        m, d.images, d.labels, 0.5, steps=3, norm="L2", targets=(d.labels + 1) % 4
    ),
    "margin_pgd": lambda m, d: attacks.margin_pgd(m, d.images, d.labels, 0.1, steps=3),
    "cw_l2": lambda m, d: attacks.cw_l2(m, d.images, d.labels, steps=20, search_steps=3),
    "square": lambda m, d: attacks.square(m, d.images, d.labels, 0.2, queries=9),
    "transfer": lambda m, d: attacks.transfer(
        m, d.images, d.labels, 0.1, surrogate=[m, OTHER], steps=3
    ),
    "bpda": lambda m, d: attacks.pgd(
        attacks.bpda(m, squeezing.bit_depth), d.images, d.labels, 0.1, steps=3
    ),
    "eot": lambda m, d: attacks.pgd(attacks.eot(m, 2), d.images, d.labels, 0.1, steps=2),
    "robustness": lambda m, d: torch.tensor(
        attacks.robustness(
            m, d.images, d.labels, {"a": partial(attacks.pgd, steps=2), "b": attacks.fgsm}, [0, 0.1]
        ).accuracy
    ),
    "masking_report": lambda m, d: torch.tensor(
        attacks.masking_report(
            m, d.images, d.labels, 0.1, steps=3, queries=5, samples=2
        ).share.to_numpy()
    ),
    "clean_label_backdoor": lambda m, d: poisons.clean_label_backdoor(d, m, 0.1, 1, steps=2).images,
    "narcissus": lambda m, d: poisons.narcissus(d, m, 0.1, 1, warmup=1, steps=2).images,
    "feature_collision": lambda m, d: (
        poisons.feature_collision(d, m, d.images[:1], 1, poisons=2, steps=2, layer="body").images
    ),
    "bullseye_polytope": lambda m, d: (
        poisons.bullseye_polytope(
            d, [m, OTHER], d.images[:1], 1, poisons=2, steps=2, layers=["body"]
        ).images
    ),
    "convex_polytope": lambda m, d: (
        poisons.convex_polytope(
            d, [m, OTHER], d.images[:1], 1, poisons=2, steps=2, layers=["body"]
        ).images
    ),
    "gradient_matching": lambda m, d: (
        poisons.gradient_matching(d, m, d.images[:1], 1, rate=0.1, steps=2, restarts=1).images
    ),
    "alignment": lambda m, d: torch.tensor(poisons.alignment(m, d.images, d.images[:1], 1)),
    **{
        name: lambda m, d, name=name: getattr(explain, name)(m, d.images, d.labels)
        for name in ("gradient", "gradient_x_input", "integrated_gradients", "surrogate", "shapley")
    },
    "grad_cam": lambda m, d: explain.grad_cam(Mapped(m), d.images, d.labels, layer="first"),
    "occlusion": lambda m, d: explain.occlusion(m, d.images, d.labels),
    "counterfactual": lambda m, d: explain.counterfactual(
        m, d.images, (d.labels + 1) % 4, d.images.flip(0)
    )[0],
    "retrain_head": lambda m, d: trained(poisons.retrain_head(m, d, steps=3)),
    "fit": lambda m, d: fitted(d),
    **{k: (lambda m, d, loss=loss: fitted(d, loss=loss)) for k, loss in LOSSES.items()},
    "ascend": lambda m, d: adversarial_training.ascend(
        m, lambda x: m(x).sum(), d.images, d.images, 0.1, 0.05, 2
    ),
    "distil": lambda m, d: trained(distillation.distil(Net, d, 5.0, **QUICK)[1]),
    "vanished": lambda m, d: distillation.vanished(m, d.images, d.labels),
    "fine_tune": lambda m, d: trained(correction.fine_tune(m, d, **QUICK).model),
    "etf_head": lambda m, d: trained(correction.etf_head(m, d, **QUICK).model),
    "train_energy": lambda m, d: wash.energies(d.images, energy(d)),
    "train_diffusion": lambda m, d: trained(diffusion(d)),
    "purify by energy": lambda m, d: wash.purify(d.images, energy(d), steps=2, progress=False),
    "reps": lambda m, d: wash.reps(
        d.images, energy(d), diffusion(d), steps=2, t=2, repetitions=1, progress=False
    ),
    "friendly_noise": lambda m, d: baselines.friendly_noise(d.images, m, steps=2, progress=False),
}


@contextmanager
def doubled():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES = {
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "float64": doubled,
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CRAFT)
def test_the_mode_of_the_caller_changes_nothing(name, mode):
    model, free = Net(), some()
    outside = CRAFT[name](model, free)
    with MODES[mode]():
        inside = CRAFT[name](model, some())  # the images are made inside, too
        held = some()
    assert not held.images.is_inference()
    torch.testing.assert_close(inside, outside, rtol=0, atol=0, check_dtype=False)
    assert all(w.requires_grad and w.grad is None for w in model.parameters())


@pytest.mark.parametrize("name", ["fgsm", "pgd", "cw_l2", "square"])
def test_images_made_in_inference_mode_are_attacked_outside(name):
    with torch.inference_mode():
        images = some().images.clone()
        assert images.is_inference()
    short = {"steps": 5, "search_steps": 2} if name == "cw_l2" else {"eps": 0.1}
    made = getattr(attacks, name)(Net(), images, some().labels, **short)
    assert made.shape == images.shape


def test_a_model_made_in_inference_mode_is_refused_by_name_and_ours_is_none():
    with torch.inference_mode():
        inside, ours = Net(), models.build("mlp", some(), widths=(4,))
    with pytest.raises(ValueError, match="model: Net was made inside torch.inference_mode"):
        attacks.fgsm(inside, some().images, some().labels, 0.1)
    with pytest.raises(ValueError, match="model: Net was made inside"):
        training.fit(inside, some(), **QUICK)
    training.fit(ours, some(), **QUICK)
    training.predict(inside, some().images)  # what needs no gradient works


def public(room) -> set[str]:
    return {name for name, shown in vars(room).items() if inspect.isfunction(shown)}


def test_every_public_attack_and_crafter_is_tried_in_every_mode():
    plain = {
        "poisoned",
        "adaptive_blend",
        "adaptive_patch",
        "badnets",
        "blended",
        "input_aware",
        "sig",
        "sticker",
        "wanet",
        "label_flip",
        "random_shift",
    }
    losses = {"cross_entropy", "margin"}
    assert public(attacks) - losses <= set(CRAFT)
    assert public(poisons) - plain <= set(CRAFT)
    scores = {"agreement", "hit_rate", "randomised", "restored", "squares"}
    assert public(explain) - scores <= set(CRAFT)


# Not a number


BROKEN = [name for name in CRAFT if name not in ("etf_head", "fine_tune") and "train" not in name]


@pytest.mark.parametrize(
    "name",
    [
        *("fgsm", "pgd", "margin_pgd", "cw_l2", "square", "transfer", "robustness", "bpda", "eot"),
        *("masking_report", "clean_label_backdoor", "narcissus", "gradient_matching", "alignment"),
        *("vanished", "friendly_noise"),
    ],
)
def test_a_diverged_model_is_refused(name):
    with pytest.raises(ValueError, match="logits: NaN or infinite"):
        CRAFT[name](Nan(), some())


def test_a_loss_that_is_not_finite_leaves_the_weights_as_they_were():
    for spoil in (torch.nan, torch.inf, -torch.inf):
        model, calls = Net(), []

        def loss(m, x, y, spoil=spoil, calls=calls):
            calls.append(trained(m))
            return m(x).square().mean() * (1 if len(calls) < 3 else spoil)

        with pytest.raises(ValueError, match="the loss became"):
            training.fit(model, some(), loss=loss, batch_size=4, **QUICK)
        assert torch.equal(trained(model), calls[-1]) and len(calls) == 3


class Late(Net):
    """Finite where it is first asked, NaN elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return super().forward(images) * (1 if self.calls < 2 else torch.nan)


@pytest.mark.parametrize("name", ["pgd", "cw_l2", "square", "margin_pgd"])
def test_logits_that_become_nan_on_the_way_do_not_count_as_fooled(name):
    with pytest.raises(ValueError, match="logits: NaN"):
        CRAFT[name](Late(), some())


def smooth(model, classes=4):
    return smoothing.Smooth(model, classes, 0.25)


FEATURES = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 4
NAN = FEATURES.index_fill(0, torch.tensor([3]), torch.nan)
SCORE = NAN[:, 0]
COLLAPSE = geometry.measure(FEATURES, LABELS)
REFUSED = {
    "predict": (lambda: training.predict(Nan(), some().images), "logits: NaN"),
    "predict, images": (lambda: training.predict(Net(), some().images / 0), "images: NaN"),
    "accuracy": (lambda: training.accuracy(Nan(), some()), "logits: NaN"),
    "targets": (
        lambda: training.fit(Net(), some(), targets=torch.full((24, 4), torch.nan), **QUICK),
        "targets: NaN",
    ),
    "certify, model": (lambda: smooth(Nan()).certify(some().images, 5, 9), "logits: NaN"),
    "smooth predict": (lambda: smooth(Nan()).predict(some().images, 9), "logits: NaN"),
    "certify, images": (lambda: smooth(Net()).certify(some().images / 0, 5, 9), "images"),
    "certify, more classes": (
        lambda: smooth(Net(), 3).certify(some().images, 5, 9),
        r"model: returned .*4.*3",
    ),
    "votes beyond K": (
        lambda: partition.votes([lambda x: torch.full((len(x),), 4)], some().images, 4),
        "0..3 is allowed",
    ),
    "votes of NaN": (lambda: partition.certificate(SCORE.reshape(4, 10)), "votes: got"),
    "joint_score": (
        lambda: squeezing.joint_score(Nan(), some().images, [squeezing.bit_depth]),
        "logits: NaN",
    ),
    "squeezing threshold": (lambda: squeezing.threshold(SCORE), "clean_scores: NaN"),
    "bit_depth": (lambda: squeezing.bit_depth(some().images / 0), "images: NaN"),
    "median": (lambda: squeezing.median(some().images / 0, 4), "images: NaN"),
    "radius": (lambda: smoothing.radius(np.array([0.5, np.nan]), 0.25), "share: got"),
    "warp": (lambda: poisons.wanet(some(), 0.25, s=float("nan")), "s: got nan"),
    "a rule's limit": (
        lambda: detection.RULES["mad"](FEATURES[:, 0], LABELS, limit=float("nan")),
        "limit: got nan",
    ),
    "a weight": (
        lambda: baselines.friendly_noise(some().images, Net(), weight=float("nan")),
        "weight: got nan",
    ),
    "jpeg": (lambda: squeezing.jpeg(some().images / 0), "images: NaN"),
    "confusion": (lambda: poisons.metrics.confusion(Nan(), some()), "logits: NaN"),
    "confusion, more classes": (
        lambda: poisons.metrics.confusion(
            Net(), ImageSet(some().images, some().labels % 3, tuple("abc"))
        ),
        "model: returned 4 logits",
    ),
    "interval": (lambda: poisons.metrics.interval([0.5, float("nan")]), "values: got nan"),
    "top": (lambda: detection.top(SCORE), "score: NaN"),
    "known_rate": (lambda: detection.known_rate(SCORE, 0.1), "score: NaN"),
    "auroc": (lambda: detection.auroc(SCORE, LABELS == 0), "score: NaN"),
    "tpr": (lambda: detection.tpr_at_fpr(SCORE, LABELS == 0, 0.1), "score: NaN"),
    "agreement": (lambda: detection.agreement({"a": SCORE}, LABELS), "score: NaN"),
    "core_of": (lambda: correction.opinions.core_of(SCORE, LABELS), "odd: NaN"),
    "lookalikes": (
        lambda: correction.opinions.lookalikes({"a": NAN}, LABELS, LABELS == 0, LABELS == 0),
        "features: NaN",
    ),
    "logits for probabilities": (
        lambda: detection.confident_learning(FEATURES, LABELS, probabilities=FEATURES[:, :4]),
        "probabilities: the least is",
    ),
    "bonferroni": (lambda: detection.bonferroni(NAN), "p: values outside"),
    "witness": (lambda: detection.witness(NAN, FEATURES), "natural: NaN"),
    "mmd_test": (lambda: detection.mmd_test(FEATURES, NAN), "suspect: NaN"),
    "measure": (lambda: geometry.measure(NAN, LABELS), "features: NaN"),
    "measure, classifier": (
        lambda: geometry.measure(FEATURES, LABELS, (NAN[:4], None)),
        "classifier: NaN",
    ),
    "nearest_class": (lambda: geometry.nearest_class(NAN, COLLAPSE), "features: NaN"),
    "residual": (lambda: geometry.residual(NAN, LABELS, COLLAPSE), "features: NaN"),
    "isolated": (lambda: baselines.isolated(NAN, LABELS), "gradients: NaN"),
    "langevin": (
        lambda: wash.langevin(
            some().images / 0, lambda x: x.sum((1, 2, 3)), 1, generator=torch.Generator()
        ),
        "x: NaN",
    ),
    "adversarial noise": (lambda: adversarial_training.noise(some().images / 0), "images: NaN"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_finite_gets_no_rank_no_class_and_no_certificate(name):
    call, says = REFUSED[name]
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("name", detection.SCORES)
def test_collapse_to_the_last_bit_leaves_finite_scores(name):
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))[LABELS]
    score = detection.SCORES[name](features, LABELS)
    assert score.isfinite().all()
    if name == "whitened_margin":
        assert (score < 0).all()


# Numbers and arrays


SCALARS = {
    "numpy": (np.float32, np.int64),
    "numpy, other kinds": (np.float64, np.uint8),
    "arrays without axes": (np.array, np.array),
    "torch": (lambda v: torch.tensor(v, dtype=torch.float64), torch.tensor),
}
NUMBERS = {
    "pgd": lambda f, i: attacks.pgd(
        Net(), some().images, some().labels, f(0.25), steps=i(2), seed=i(3), batch_size=i(8)
    ),
    "square": lambda f, i: attacks.square(
        Net(), some().images, some().labels, f(0.25), queries=i(5), p=f(0.5)
    ),
    "cw_l2": lambda f, i: attacks.cw_l2(
        Net(), some().images, some().labels, kappa=f(0.5), steps=i(5), search_steps=i(2), lr=f(0.25)
    ),
    "robustness": lambda f, i: torch.tensor(
        attacks.robustness(
            Net(), some().images, some().labels, {"a": attacks.fgsm}, [f(0.0), f(0.25)]
        ).accuracy
    ),
    "masking_report": lambda f, i: torch.tensor(
        attacks.masking_report(
            Net(), some().images, some().labels, f(0.25), steps=i(2), queries=i(3), samples=i(1)
        ).share.to_numpy()
    ),
    "fit": lambda f, i: fitted(
        some(), lr=f(0.25), momentum=f(0.5), weight_decay=f(0.0), batch_size=i(8), seed=i(3)
    ),
    "badnets": lambda f, i: poisons.badnets(some(), f(0.25), i(1), value=f(0.5), seed=i(3)).images,
    "blended": lambda f, i: poisons.blended(some(), f(0.25), i(1), alpha=f(0.5), seed=i(3)).images,
    "sig": lambda f, i: poisons.sig(some(), f(0.125), i(1), delta=f(0.25), seed=i(3)).images,
    "wanet": lambda f, i: poisons.wanet(some(), f(0.25), i(1), s=f(0.5), k=i(4), seed=i(3)).images,
    "adaptive_blend": lambda f, i: (
        poisons.adaptive_blend(
            some(), f(0.25), i(1), weak=f(0.5), pieces=i(4), cover=f(1), seed=i(3)
        ).images
    ),
    "adaptive_patch": lambda f, i: (
        poisons.adaptive_patch(some(), f(0.25), i(1), opacity=(f(0.5),), seed=i(3)).images
    ),
    "input_aware": lambda f, i: (
        poisons.input_aware(some(), f(0.25), i(1), eps=f(0.5), cover=f(1), seed=i(3)).images
    ),
    "label_flip": lambda f, i: poisons.label_flip(some(), f(0.25), seed=i(3)).labels,
    "gradient_matching": lambda f, i: (
        poisons.gradient_matching(
            *(some(), Net(), some().images[:1], i(1)),
            rate=f(0.125),
            eps=f(0.25),
            steps=i(2),
            seed=i(1),
        ).images
    ),
    "stratified": lambda f, i: data.stratified(some().labels, i(8), i(3)),
    "build": lambda f, i: trained(models.build("mlp", some(), widths=(4,), seed=i(3))),
    "features": lambda f, i: activations.features(
        Net(), some().images, ["body"], pool=i(1), batch_size=i(7)
    )["body"],
    "known_rate": lambda f, i: detection.known_rate(FEATURES[:, 0], f(0.25)),
    "top": lambda f, i: detection.top(FEATURES[:, 0], i(3)),
    "deep_knn": lambda f, i: detection.deep_knn(FEATURES, LABELS, k=i(3)),
    "confident_learning": lambda f, i: detection.confident_learning(
        FEATURES, LABELS, folds=i(4), seed=i(3)
    ),
    "mad": lambda f, i: detection.RULES["mad"](FEATURES[:, 0], LABELS, limit=f(2.0)),
    "mmd_test": lambda f, i: torch.tensor(
        detection.mmd_test(FEATURES[:20], FEATURES[20:], permutations=i(19), seed=i(3))
    ),
    "rate_p_values": lambda f, i: detection.rate_p_values(
        FEATURES[:20], FEATURES[20:], tests=i(2), n=i(9), permutations=i(19), seed=i(3)
    ),
    "precision": lambda f, i: torch.tensor(
        detection.precision_at(FEATURES[:, 0], LABELS == 1, i(4))
    ),
    "simplex_etf": lambda f, i: geometry.simplex_etf(i(4), i(6), i(3)),
    "random_removal": lambda f, i: correction.random_removal(LABELS, LABELS == 1, seed=i(3)),
    "relabel": lambda f, i: (
        correction.relabel(
            some(),
            {"a": some().images.flatten(1)},
            agree=f(0.5),
            folds=i(3),
            repeats=i(1),
            seed=i(3),
        ).labels
    ),
    "certify": lambda f, i: (
        smoothing.Smooth(Net(), i(4), f(0.25))
        .certify(
            some().images, i(10), i(20), f(0.125), i(50), target=f(0.125), seed=i(3), progress=False
        )
        .radii
    ),
    "smooth predict": lambda f, i: smoothing.Smooth(Net(), i(4), f(0.25)).predict(
        some().images, i(20), f(0.125), i(50), i(3)
    ),
    "partition": lambda f, i: partition.parts(some().images, i(3)),
    "bit_depth": lambda f, i: squeezing.bit_depth(some().images, i(2)),
    "median": lambda f, i: squeezing.median(some().images, i(3)),
    "non_local_means": lambda f, i: squeezing.non_local_means(some().images, i(3), i(3), f(0.25)),
    "jpeg": lambda f, i: squeezing.jpeg(some().images, i(50)),
    "jpeg_differentiable": lambda f, i: squeezing.jpeg_differentiable(some().images, i(50)),
    "threshold": lambda f, i: torch.tensor(squeezing.threshold(FEATURES[:, 0], f(0.25))),
    "soft_labels": lambda f, i: distillation.soft_labels(Net(), some().images, f(2.0)),
    "pgd_training": lambda f, i: fitted(
        some(), loss=adversarial_training.pgd_training(f(0.25), f(0.125), i(2), i(3))
    ),
    "trades": lambda f, i: fitted(
        some(), loss=adversarial_training.trades(f(0.25), f(2.0), f(0.125), i(2), i(3))
    ),
    "purify": lambda f, i: wash.purify(
        some().images, energy(some()), steps=i(2), seed=i(3), chunk=i(16), progress=False
    ),
    "diffuse": lambda f, i: wash.purify(
        some().images, diffusion(some()), t=i(2), seed=i(3), progress=False
    ),
    "train_energy": lambda f, i: trained(
        wash.train_energy(
            wash.build_energy(SHAPE, widths=(8,), seed=i(3), eps=f(0.03125)),
            *(some().images,),
            **{"updates": i(2), "steps": i(2), "batch_size": i(8), "lr": f(0.125), "seed": i(3)},
            progress=False,
        ).model
    ),
}


@pytest.mark.parametrize("kind", SCALARS)
@pytest.mark.parametrize("name", NUMBERS)
def test_scalars_of_numpy_and_torch_are_numbers(name, kind):
    call = NUMBERS[name]
    assert torch.equal(call(*SCALARS[kind]), call(float, int))


@pytest.mark.parametrize("name", detection.SCORES)
def test_features_and_labels_of_numpy_are_scored(name):
    score = detection.SCORES[name]
    wanted = score(FEATURES, LABELS)
    for kind in (np.int64, np.int32, np.uint8):
        assert torch.equal(score(FEATURES.numpy(), LABELS.numpy().astype(kind)), wanted)
    backwards = np.ascontiguousarray(FEATURES.numpy()[::-1])[::-1]  # negative strides
    assert torch.equal(score(backwards, LABELS), wanted)


def test_arrays_of_numpy_are_measured_ranked_and_tested():
    features, labels = FEATURES.numpy(), LABELS.numpy()
    assert geometry.measure(features, labels).row() == COLLAPSE.row()
    assert torch.equal(geometry.residual(features, labels), geometry.residual(FEATURES, LABELS))
    assert detection.auroc(features[:, 0], labels == 1) == detection.auroc(
        FEATURES[:, 0], LABELS == 1
    )
    assert detection.mmd(features[:20], features[20:]) == detection.mmd(
        FEATURES[:20], FEATURES[20:]
    )
    assert torch.equal(
        detection.RULES["mad"](features[:, 0], labels),
        detection.RULES["mad"](FEATURES[:, 0], LABELS),
    )
    with pytest.raises(ValueError, match="features: got list"):
        geometry.measure(features.tolist(), labels)
    with pytest.raises(ValueError, match="labels: got torch.float32"):
        geometry.measure(features, labels.astype(np.float32))


BIG = {
    "generator": lambda s: torch.rand(9, generator=doors.seeded(s)),
    "pgd": lambda s: attacks.pgd(Net(), some().images, some().labels, 0.2, steps=1, seed=s),
    "build": lambda s: trained(models.build("mlp", some(), widths=(4,), seed=s)),
    "fit": lambda s: fitted(some(), seed=s, batch_size=4),
    "badnets": lambda s: poisons.badnets(some(), 0.25, 1, seed=s).is_poisoned,
    "blended": lambda s: poisons.blended(some(), 0.25, 1, seed=s).images,
    "label_flip": lambda s: poisons.label_flip(some(), 0.25, seed=s).labels,
    "stratified": lambda s: data.stratified(some().labels, 12, s),
    "random_score": lambda s: detection.random_score(LABELS, s),
    "random_removal": lambda s: correction.random_removal(LABELS, FEATURES[:, 0] > 0, seed=s),
    "purify": lambda s: wash.purify(some().images, energy(some()), steps=1, seed=s, progress=False),
    "build_energy": lambda s: trained(wash.build_energy(SHAPE, widths=(8,), seed=s)),
    "simplex_etf": lambda s: geometry.simplex_etf(4, 6, s),
    "certify": lambda s: smooth(Net()).certify(some().images, 10, 40, seed=s).radii,
}


@pytest.mark.parametrize("name", BIG)
def test_all_of_a_seed_counts(name):
    """A CPU's generator forgets what lies above 32 bits; numpy's refuse it."""
    found = [BIG[name](s) for s in (0, 2**32, 2**40 + 1, 2**63)]
    assert torch.equal(found[1], BIG[name](np.uint64(2**32)))
    assert not any(torch.equal(found[0], other) for other in found[1:])
    assert not torch.equal(found[1], found[2])


def test_a_small_seed_means_what_it_meant():
    wanted = torch.rand(5, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.rand(5, generator=doors.seeded(7)), wanted)


@pytest.mark.parametrize("wrong", [True, 1.5, "1", None, float("nan"), torch.tensor([1, 2])])
def test_what_is_no_whole_number_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match="epochs: got"):
        training.fit(Net(), some(), progress=False, epochs=wrong)
    with pytest.raises(ValueError, match="seed: got"):
        poisons.label_flip(some(), 0.2, seed=wrong)
    with pytest.raises(ValueError, match="target: got"):
        poisons.badnets(some(), 0.2, wrong)


# Robustness of attacks that call their eps something else


def shifted(model, images, labels, strength):
    return (images + strength).clamp(0, 1)


class Shift:
    def __call__(self, model, images, labels, radius):
        return shifted(model, images, labels, radius)


@pytest.mark.parametrize(
    "attack",
    [
        shifted,
        lambda m, x, y, e: shifted(m, x, y, e),
        lambda *given: shifted(*given),
        lambda m, x, y, *, epsilon=0.0: shifted(m, x, y, epsilon),
        lambda m, x, y, epsilon=0.0: shifted(m, x, y, epsilon),
        Shift(),
    ],
)
def test_an_attack_may_call_its_eps_what_it_likes(attack):
    found = attacks.robustness(Net(), some().images, some().labels, {"mine": attack}, [0.0, 0.9])
    wanted = training.accuracy(Net(), some(), (some().images + 0.9).clamp(0, 1))
    assert found.accuracy.tolist() == [training.accuracy(Net(), some()), pytest.approx(wanted)]


def test_a_data_set_takes_any_whole_numbers():
    for kind in (np.int64, torch.tensor):
        train, test = data.load(
            "digits", n_train=kind(50), n_test=kind(20), seed=kind(1), device="cpu"
        )
        assert (len(train), len(test)) == (50, 20)
    first, other = (
        data.load("digits", n_train=50, seed=seed, device="cpu")[0] for seed in (0, 2**40)
    )
    assert not torch.equal(first.images, other.images)
