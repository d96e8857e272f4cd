"""Keys of the run cache: another model has another key, the same one has it in any process."""

import functools
import importlib
import random
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from nclib import attacks, cache, data, models, training
from nclib.cache import fingerprint
from nclib.defenses import squeezing

NET = """
from torch import nn
SCALE = 2.0
class Head(nn.Module):
    TEMPERATURE = 1.0
    def __init__(self):
        super().__init__()
        self.layer, self.sharp, self.generator = nn.Linear(2, 2), 1.0, None
        nn.init.ones_(self.layer.weight), nn.init.zeros_(self.layer.bias)
    def forward(self, x):
        return self.cooled(self.layer(x)) * SCALE
    def cooled(self, x):
        return x / self.TEMPERATURE
model = nn.Sequential(nn.Flatten(), Head())
"""


def from_notebook(code=NET):
    """The model of a notebook's cell."""
    cell = {"__name__": "__main__", "generator": object()}  # an attribute has the name, no global
    exec(code, cell)
    return cell["model"]


@pytest.fixture
def digits(tmp_path, monkeypatch):
    monkeypatch.setenv("NCLIB_CACHE", str(tmp_path))
    return data.load("digits", device="cpu")[0].subset(torch.arange(100))


def test_a_frozen_layer_makes_another_run(digits):
    def fit(frozen):
        model = models.build("cnn", digits)
        model.conv1.requires_grad_(not frozen)
        before = model.conv1[0].weight.detach().clone()
        run = training.fit(model, digits, epochs=1, progress=False)
        return run.cached, torch.equal(model.conv1[0].weight, before)

    assert fit(frozen=False) == (False, False)
    assert fit(frozen=True) == (False, True)
    assert fit(frozen=True) == (True, True)


@pytest.mark.parametrize(
    "old, new",
    [
        ("self.cooled(", "self.cooled(-"),  # the forward of a child
        ("return x / self", "return x * self"),  # another method
        (
            "sharp, self.generator = nn.Linear(2, 2), 1.0",
            "sharp, self.generator = nn.Linear(2, 2), 2.0",
        ),
        ("TEMPERATURE = 1.0", "TEMPERATURE = 4.0"),
        ("SCALE = 2.0", "SCALE = 3.0"),
        ("nn.Flatten()", "nn.Flatten(0)"),
        ("nn.Flatten()", "nn.Identity()"),
    ],
)
def test_an_edited_cell_gives_another_key(old, new):
    assert NET.count(old) == 1
    assert fingerprint(from_notebook()) == fingerprint(from_notebook())
    assert fingerprint(from_notebook()) != fingerprint(from_notebook(NET.replace(old, new)))


def test_an_edited_class_that_a_function_names_gives_another_key():
    code = "class Rule:\n    def __call__(self, x): return x + 1\nmodel = lambda x: Rule()(x)"
    assert fingerprint(from_notebook(code)) == fingerprint(from_notebook(code))
    other = code.replace("+ 1", "+ 2")
    assert fingerprint(from_notebook(code)) != fingerprint(from_notebook(other))


def test_wrapped_models_are_told_apart_by_what_wraps_them(digits):
    model = models.build("mlp", digits)
    wrapped = [
        squeezing.Squeezed(model, partial(squeezing.bit_depth, bits=1)),
        squeezing.Squeezed(model, partial(squeezing.bit_depth, bits=4)),
        squeezing.Squeezed(model, squeezing.median),
        attacks.eot(model, 2),
        attacks.eot(model, 3),
        attacks.bpda(model, squeezing.median),
    ]
    keys = {fingerprint(one) for one in wrapped}
    assert len(keys) == len(wrapped)
    assert keys == {fingerprint(one.train(not one.training)) for one in wrapped}  # not by its mode


def test_tied_weights_and_hooks_count():
    def pair():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

    apart, tied, hooked = pair(), pair(), pair()
    apart[1].load_state_dict(apart[0].state_dict())
    tied[1].weight, tied[1].bias = tied[0].weight, tied[0].bias
    hooked[1].load_state_dict(hooked[0].state_dict())
    hooked[0].register_forward_hook(lambda _, __, output: -output)
    assert len({fingerprint(m) for m in (apart, tied, hooked)}) == 3


def test_containers_know_their_length():
    assert fingerprint([[1], 2]) != fingerprint([[1, 2]])
    assert fingerprint({"a": {"b": 1}, "c": 2}) != fingerprint({"a": {"b": 1, "c": 2}})
    assert fingerprint((1,), 2) != fingerprint((1, 2))
    assert fingerprint({"a", "b"}) == fingerprint({"b", "a"}) != fingerprint({"a", "c"})


def test_what_cannot_be_known_is_refused_in_our_modules_and_a_type_in_others():
    model = from_notebook()
    keys = set()
    for seed in (0, 1):
        model[1].generator = torch.Generator().manual_seed(seed)
        keys.add(fingerprint(model))
    assert len(keys) == 2
    model[1].generator = threading.Lock()
    with pytest.raises(ValueError, match="cannot fingerprint .*lock"):
        fingerprint(model)
    foreign = nn.Sequential(nn.Linear(2, 2))
    before = fingerprint(foreign)
    foreign[0].processor = threading.Lock()  # as the attention layers of diffusers have one
    assert fingerprint(foreign) != before


KINDS = """
from functools import partial
import torch
from torch import nn
from nclib import attacks, data, models
from nclib.cache import fingerprint
from nclib.defenses import squeezing
from nclib.defenses.purification import diffusion, energy
torch.manual_seed(0)
train = data.load("digits", device="cpu")[0]
cnn, mlp = models.build("cnn", train), models.build("mlp", train)
other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Flatten(), nn.LSTM(4, 4))
other.append(nn.MultiheadAttention(4, 2)).append(nn.TransformerEncoderLayer(4, 2, 8))
found = [cnn, mlp, other, diffusion.Diffusion(other)]
found += [diffusion.build_diffusion((1, 8, 8)), energy.build_energy((1, 8, 8))]
found += [squeezing.Squeezed(cnn, squeezing.median, partial(squeezing.bit_depth, bits=2))]
found += [attacks.bpda(cnn, lambda x: x.round()), attacks.eot(mlp, 4), nn.ModuleList([cnn, mlp])]
found += [[lambda x: x in {'a', 'b', 'c', 'd'}, {'k': (1, None)}, {'e', 'f', 'g'}]]
keys = [fingerprint(one) for one in found]
"""


def test_every_kind_of_model_and_function_has_one_key_in_all_processes():
    here = {"__name__": "__main__"}
    exec(KINDS, here)
    assert len(set(here["keys"])) == len(here["found"])
    there = subprocess.check_output([sys.executable, "-c", KINDS + "print(*keys)"], text=True)
    assert there.split() == here["keys"]


def test_a_run_with_tied_weights_is_kept(digits):
    def fit():
        model = models.build("mlp", digits, widths=(16, 16), batchnorm=False)
        model.hidden2[0] = nn.Linear(16, 16)
        torch.manual_seed(0)
        model.hidden2[0].reset_parameters()
        model.add_module("again", nn.Linear(16, 16))
        model.again.weight = model.hidden2[0].weight
        nn.init.zeros_(model.again.bias)
        return training.fit(model, digits, epochs=1, progress=False)

    first, again = fit(), fit()
    assert (first.cached, again.cached) == (False, True)
    assert again.model.again.weight is again.model.hidden2[0].weight
    assert torch.equal(first.model.fc.weight, again.model.fc.weight)


def test_a_finished_run_is_never_lost_to_its_cache(digits, monkeypatch):
    class Odd(nn.Linear):
        def get_extra_state(self):
            return object()  # no file format has this

        def set_extra_state(self, state):
            pass

    with pytest.warns(UserWarning, match="could not be kept"):
        cache.save(cache.cache_root() / "a.safetensors", Odd(1, 1).state_dict(), {})
    with pytest.warns(UserWarning, match="could not be kept"):
        cache.save(cache.cache_root() / "a.safetensors", {}, {"number": object()})
    assert not list(cache.cache_root().glob("*"))


def test_the_columns_of_a_history_keep_their_order(digits):
    layers = [f"layer{i}" for i in (12, 3, 1, 20)]
    probes = {
        "z": lambda m: {name: torch.zeros(2) + len(name) for name in layers},
        "a": lambda m: {"second": 2.0, "first": 1.0},
    }
    options = {"epochs": 1, "probes": probes, "progress": False}
    first = training.fit(models.build("mlp", digits), digits, **options)
    again = training.fit(models.build("mlp", digits), digits, **options)
    assert again.cached and list(again.history) == list(first.history)
    assert list(first.history)[-6:] == [*(f"z/{name}" for name in layers), "a/second", "a/first"]


HELPERS = """
import functools
import deeper
from deeper import shifted
from torch import nn
SCALE = 1.0
class Base(nn.Linear):
    def body(self, x): return x.flatten(1) * 1
class Net(Base):
    def __init__(self):
        super().__init__(64, 10)
        nn.init.zeros_(self.weight), nn.init.zeros_(self.bias)
    def forward(self, x): return super().forward(self.body(x))
def _work(x): return x * SCALE
def augment(x, generator): return _work(x) + weak(0) + deeper.plus(0) + shifted(0)
@functools.cache
def weak(x): return x + 0
"""
DEEPER = """
OFFSET = 0
def plus(x): return x + OFFSET
def shifted(x): return x + 0 * OFFSET
"""


@pytest.fixture
def helpers(tmp_path, monkeypatch):
    """Imports the two modules of a student from these texts, anew each time."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def imported(text=HELPERS, deeper=DEEPER):
        for name, code in {"helpers": text, "deeper": deeper}.items():
            (tmp_path / f"{name}.py").write_text(code)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("helpers")

    yield imported
    for name in ("helpers", "deeper"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE = 1.0", "SCALE = 0.0"),
        ("return x * SCALE", "return x / SCALE"),
        ("flatten(1) * 1", "flatten(1) * 2"),  # a method of a base of the model's class
        ("weak(x): return x + 0", "weak(x): return x + 1"),
        ("OFFSET = 0", "OFFSET = 1"),  # two modules away
        ("x + OFFSET", "x - OFFSET"),
        ("0 * OFFSET", "1 * OFFSET"),
    ],
)
def test_an_edited_helper_module_gives_another_run(digits, helpers, old, new):
    def fit(module):
        augment = module.augment
        return training.fit(module.Net(), digits, epochs=1, augment=augment, progress=False)

    assert [fit(helpers()).cached for _ in range(2)] == [False, True]
    edited = helpers(HELPERS.replace(old, new), DEEPER.replace(old, new))
    assert not fit(edited).cached
    assert fit(helpers()).cached  # the old text again


def test_a_changed_global_of_a_helper_module_counts(helpers):
    module = helpers()
    first = fingerprint(lambda x: module.augment(x, None))
    module.SCALE = 2.0
    assert fingerprint(lambda x: module.augment(x, None)) != first
    module.SCALE = 1.0
    assert fingerprint(lambda x: module.augment(x, None)) == first


def test_functions_that_differ_in_the_names_of_their_arguments_differ():
    assert fingerprint(lambda a, b: a - b) == fingerprint(lambda a, b: a - b)
    assert fingerprint(lambda a, b: a - b) != fingerprint(lambda b, a: b - a)


class Drop(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.fc, self.p = nn.Linear(64, 10), p
        nn.init.zeros_(self.fc.weight), nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        return self.fc(nn.functional.dropout(x.flatten(1), self.p, self.training))


def test_the_global_seed_counts_where_it_decides_and_goes_on_as_if_trained(digits):
    def fit(seed, model, **options):
        torch.manual_seed(seed)
        run = training.fit(model, digits, epochs=1, progress=False, **options)
        return run.cached, run.history["loss"][0], float(torch.rand(1))

    trained = [fit(seed, Drop()) for seed in range(3)]
    again = [fit(seed, Drop()) for seed in range(3)]
    assert {cached for cached, *_ in trained} == {False} and len({row[1:] for row in trained}) == 3
    assert again == [(True, *row[1:]) for row in trained]
    assert [fit(seed, Drop(0.0))[0] for seed in range(3)] == [False, True, True]  # draws nothing
    plain = [fit(seed, models.build("mlp", digits))[0] for seed in range(3)]
    assert plain == [False, True, True]

    def noisy(images, generator):
        return images + float(np.random.rand() + random.random())

    def numbers(first, second):
        np.random.seed(first), random.seed(second)
        return fit(0, models.build("mlp", digits), augment=noisy)[0]

    assert [numbers(0, 0), numbers(0, 0), numbers(1, 0), numbers(0, 1)] == [False, True] + [
        False
    ] * 2


def test_what_cannot_be_known_is_trained_and_not_kept(digits):
    lock = threading.Lock()

    def locked(images, generator):
        with lock:
            return images

    for _ in range(2):
        with pytest.warns(UserWarning, match="not kept: cannot fingerprint .*lock"):
            run = training.fit(
                models.build("mlp", digits), digits, epochs=1, augment=locked, progress=False
            )
        assert not run.cached and len(run.history["loss"]) == 1
    assert not list(cache.cache_root().glob("*"))


def test_a_model_is_the_same_when_it_is_frozen_or_torch_is_new(digits, monkeypatch):
    def net(**options):
        return models.build("cnn", digits, **options)

    def keys():
        return [key(net()) for key in (cache.identity, fingerprint)]

    assert cache.identity(net().requires_grad_(False).eval()) == cache.identity(net())
    assert fingerprint(net().requires_grad_(False)) != fingerprint(net())
    before = keys()
    monkeypatch.setattr(torch, "__version__", "99.0")
    after = keys()
    assert after[0] == before[0] and after[1] != before[1]
    others = [net(seed=1), models.build("mlp", digits), nn.Sequential(net()), Drop(), Drop(0.1)]
    others += [nn.Sequential(net(), nn.Softmax(1)), nn.Sequential(net(), nn.Softmax(0))]
    others += [squeezing.Squeezed(net(), squeezing.median)]
    others += [squeezing.Squeezed(net(), partial(squeezing.bit_depth, bits=b)) for b in (1, 2)]
    assert len({cache.identity(one) for one in [net(), *others]}) == 1 + len(others)


def test_views_count_by_what_they_show_and_unreadable_tensors_are_refused():
    pair = torch.tensor([1 + 2j, 3 - 1j])
    assert fingerprint(pair.conj()) == fingerprint(pair.conj().resolve_conj())
    assert fingerprint(pair.conj().imag) == fingerprint(-pair.imag) != fingerprint(pair.imag)
    assert fingerprint(pair[::2]) == fingerprint(pair[:1].clone())
    assert fingerprint(torch.ones(2, 3)) != fingerprint(torch.ones(3, 2))
    for odd in (
        torch.eye(3).to_sparse(),
        torch.empty(2, device="meta"),
        (i for i in range(3)),
        functools.reduce(lambda inner, _: [inner], range(100_000), 1),
    ):
        with pytest.raises(ValueError, match="cannot fingerprint"):
            fingerprint(odd)
