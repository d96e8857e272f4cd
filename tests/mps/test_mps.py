"""Readiness for a Mac's GPU, checked with no Mac: see guard.py. Run by `make test-mps`."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from guard import DEVICE, Guard, OnDevice, Refused, kernels

from nclib import (
    activations,
    attacks,
    correction,
    data,
    detection,
    device,
    geometry,
    models,
    poisons,
    training,
)
from nclib.defenses import adversarial_training as advtrain
from nclib.defenses import smoothing, squeezing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def guard(monkeypatch, tmp_path):
    """The guard, on a machine whose only device beside the CPU is the stand-in."""
    monkeypatch.setattr(device, "KINDS", (DEVICE.type, "cpu"))
    monkeypatch.setattr(device, "available", lambda kind: kind in device.KINDS)
    monkeypatch.delenv("NCLIB_DEVICE", raising=False)
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path / "cache"))
    state = SimpleNamespace(get_rng_state=torch.get_rng_state, set_rng_state=torch.set_rng_state)
    monkeypatch.setattr(torch, DEVICE.type, state, raising=False)  # as torch.mps
    with Guard() as guard:
        yield guard


# The guard itself: it refuses what it must, and only that.


def test_float64_on_the_device_is_refused(guard):
    x = torch.rand(3).to(DEVICE)
    for widen in (x.double, lambda: x.to(torch.float64), lambda: torch.rand(3).double().to(DEVICE)):
        with pytest.raises(Refused, match="float64"):
            widen()
    with pytest.raises(Refused, match="float64"):
        torch.zeros(2, dtype=torch.float64, device=DEVICE)


def test_the_cpu_is_free_to_do_both(guard):
    x = torch.rand(5, 3).to(DEVICE).cpu()
    assert type(x) is torch.Tensor
    assert torch.linalg.svdvals(x.double()).dtype == torch.float64
    assert guard.seen.keys() == {"_to_copy"}


def test_an_operator_without_mps_kernel_is_refused(guard):
    x = torch.rand(4, 4).to(DEVICE)
    for call, name in ((torch.mode, "mode"), (torch.linalg.eig, "linalg_eig")):
        with pytest.raises(Refused, match=f"{name} has no MPS kernel"):
            call(x)


def test_svd_on_the_device_is_refused_where_this_torch_lacks_it(guard):
    x = torch.rand(4, 4).to(DEVICE)
    lacks = "MPS" not in kernels()["_linalg_svd"]
    with pytest.raises(Refused, match="svd") if lacks else contextlib.nullcontext():
        torch.linalg.svd(x)


def test_two_devices_and_a_foreign_generator_are_refused(guard):
    x = torch.rand(4).to(DEVICE)
    with pytest.raises(Refused, match="mixes"):
        x + torch.rand(4)
    with pytest.raises(Refused, match="generator"):
        torch.rand(4, device=DEVICE, generator=torch.Generator().manual_seed(0))
    torch.rand(4, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0))
    assert x.add(torch.tensor(2.0))[torch.tensor([0, 1])].shape == (2,)  # these MPS allows
    with pytest.raises((RuntimeError, TypeError)):
        x.numpy()


def test_numbers_and_gradients_are_real(guard):
    x = torch.rand(4, 3).to(DEVICE).requires_grad_()
    (x.square().sum() * 2).backward()
    assert isinstance(x.grad, OnDevice) and x.grad.device == DEVICE
    assert torch.equal(x.grad.cpu(), 4 * x.detach().cpu())


# The package's device code: one line each; a new module adds its own.


def small():
    train, test = data.load("digits", n_train=200, n_test=50)
    assert train.device == DEVICE
    return train, test


@pytest.mark.parametrize("arch", ["cnn", "mlp", "resnet18"])
def test_training_features_and_geometry(guard, arch):
    train, test = small()
    train = train if arch != "resnet18" else train.subset(torch.arange(40))
    model = models.build(arch, train)

    def probe(model):
        seen = activations.features(model, train.images, pool="gap")
        return geometry.by_layer(seen, train.labels)[model.layer_names[-1]].row()

    run = training.fit(model, train, epochs=2, probes={"nc": probe}, progress=False)
    assert len(run.history["loss"]) == 2 and not run.cached
    assert 0 <= training.accuracy(model, test) <= 1
    hidden = activations.features(model, train.images, ["penultimate"])["penultimate"]
    found = geometry.measure(hidden, train.labels, activations.classifier(model, train.images)[1])
    assert geometry.residual(hidden, train.labels).shape == (len(train),)
    assert found.nc1 > 0
    assert training.fit(models.build(arch, train), train, epochs=2, probes={"nc": probe}).cached
    assert len(guard.seen) > 30  # not vacuous: the operators did pass through the guard


DEVICE_CODE = {
    "fgsm": lambda m, t: attacks.fgsm(m, t.images, t.labels, 0.1),
    "pgd": lambda m, t: attacks.pgd(m, t.images, t.labels, 0.1, steps=2, restarts=2),
    "pgd L2": lambda m, t: attacks.pgd(m, t.images, t.labels, 0.5, steps=2, norm="L2"),
    "margin_pgd": lambda m, t: attacks.margin_pgd(m, t.images, t.labels, 0.1, steps=2),
    "cw_l2": lambda m, t: attacks.cw_l2(m, t.images, t.labels, steps=3, search_steps=2),
    "square": lambda m, t: attacks.square(m, t.images, t.labels, 0.1, queries=3),
    "label_flip": lambda m, t: poisons.label_flip(t, 0.2).images,
    "badnets": lambda m, t: poisons.badnets(t, 0.1).images,
    "blended": lambda m, t: poisons.blended(t, 0.1).images,
    "sig": lambda m, t: poisons.sig(t, 0.05).images,
    "wanet": lambda m, t: poisons.wanet(t, 0.1).images,
    "adaptive_blend": lambda m, t: poisons.adaptive_blend(t, 0.1).images,
    "adaptive_patch": lambda m, t: poisons.adaptive_patch(t, 0.1).images,
    "input_aware": lambda m, t: poisons.input_aware(t, 0.1).images,
    "bit_depth": lambda m, t: squeezing.bit_depth(t.images, 2),
    "median": lambda m, t: squeezing.median(t.images, 2),
    "non_local_means": lambda m, t: squeezing.non_local_means(t.images),
    "jpeg": lambda m, t: squeezing.jpeg(t.images),
    "jpeg_differentiable": lambda m, t: squeezing.jpeg_differentiable(t.images),
    "smoothing": lambda m, t: smoothing.Smooth(m, 10, 0.25).predict(t.images, n=50),
    "robust distance": lambda m, t: detection.robust_distance(t.images.flatten(1), t.labels),
    "whitened margin": lambda m, t: detection.whitened_margin(t.images.flatten(1), t.labels),
    "deep knn": lambda m, t: detection.deep_knn(t.images.flatten(1), t.labels),
    "spectral": lambda m, t: detection.spectral(t.images.flatten(1), t.labels),
    "consensus": lambda m, t: correction.consensus(t, early=1, epochs=1).bad,
    "transplant": lambda m, t: correction.transplant(t, epochs=1).mask,
    "core of": lambda m, t: correction.core_of(t.images.mean((1, 2, 3)), t.labels),
    "lookalikes": lambda m, t: correction.lookalikes(
        {"pixels": t.images.flatten(1)}, t.labels, t.labels == 3, t.labels < 5
    ),
    "random removal": lambda m, t: correction.random_removal(t.labels, t.labels == 3),
    "known rate": lambda m, t: detection.known_rate(t.images.mean((1, 2, 3)), 0.1),
    "mad": lambda m, t: detection.RULES["mad"](t.images.mean((1, 2, 3)), t.labels),
    "witness": lambda m, t: detection.witness(t.images.flatten(1), t.images.flatten(1)),
}


@pytest.mark.parametrize("name", DEVICE_CODE)
def test_device_code(guard, name):
    _, test = small()
    model = models.build("cnn", test).eval()
    assert len(DEVICE_CODE[name](model, test)) == len(test)


def test_signs_and_their_sticker(guard, tmp_path):
    train, test = data.load("signs", n_train=20, n_test=10, root=tmp_path)
    assert test.device == test.factors.place.device == DEVICE
    attack = poisons.sticker(train, 0.1)
    assert attack.triggered(test).device == attack.factors.light.device == DEVICE


@pytest.mark.parametrize(
    "loss", [advtrain.pgd_training(0.1), advtrain.fast_training(0.1), advtrain.trades(0.1)]
)
def test_robust_training(guard, loss):
    train, _ = small()
    run = training.fit(models.build("cnn", train), train, epochs=1, loss=loss, progress=False)
    assert len(run.history["loss"]) == 1


@pytest.mark.parametrize("name", device.CHECKS)
def test_each_check_of_the_self_test_passes_the_guard(guard, name):
    assert torch.isfinite(device.CHECKS[name](DEVICE).cpu()).all()


# The lessons: every code cell, on the stand-in.


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_a_lesson_runs_under_the_guard(guard, path, monkeypatch, tmp_path):
    pytest.importorskip("IPython", reason="make test-mps installs it")
    import matplotlib.pyplot as plt
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NCLIB_STRICT", "1")
    plt.switch_backend("agg")
    shell = InteractiveShell()
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] != "code":
            continue
        result = shell.run_cell("".join(cell["source"]), silent=True)
        plt.close("all")
        error = result.error_before_exec or result.error_in_exec
        assert error is None, f"{path.name}, cell {number}: {error}"
    assert len(guard.seen) > 5
