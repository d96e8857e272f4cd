"""Keys of the run cache: another model has another key, the same one has it in any process."""

import subprocess
import sys
from functools import partial

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
    model[1].generator = torch.Generator()
    with pytest.raises(ValueError, match="cannot fingerprint .*Generator"):
        fingerprint(model)
    foreign = nn.Sequential(nn.Linear(2, 2))
    before = fingerprint(foreign)
    foreign[0].processor = object()  # as the attention layers of diffusers have one
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
found = [cnn, mlp, other, diffusion.Diffusion(diffusion.Borrowed(other))]
found += [diffusion.build_diffusion(arch, (1, 8, 8)) for arch in ("mlp", "conv")]
found += [energy.build_energy(arch, (1, 8, 8)) for arch in ("mlp", "conv")]
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
