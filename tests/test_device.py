"""The device room: the right pick, clear errors, honest timers, and a self-test that can fail."""

import subprocess
import sys

import pytest
import torch

from nclib import device


def only(monkeypatch, *kinds):
    """Pretend that this machine has these kinds of device."""
    monkeypatch.delenv("NCLIB_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int("cuda" in kinds))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)


@pytest.mark.parametrize(
    ("kinds", "expected"), [(("cuda", "mps"), "cuda"), (("mps",), "mps"), ((), "cpu")]
)
def test_the_best_available_device_is_picked(monkeypatch, kinds, expected):
    only(monkeypatch, *kinds)
    assert device.pick() == torch.device(expected)


def test_built_is_not_available(monkeypatch):
    only(monkeypatch)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    assert device.pick().type == "cpu"


def test_an_argument_beats_the_environment_which_beats_the_default(monkeypatch):
    only(monkeypatch, "cuda", "mps")
    monkeypatch.setenv("NCLIB_DEVICE", "mps")
    assert device.pick().type == "mps"
    assert device.pick("cpu").type == "cpu"
    assert device.pick(torch.device("cuda:0")).index == 0
    monkeypatch.setenv("NCLIB_DEVICE", "")
    assert device.pick().type == "cuda"


@pytest.mark.parametrize("wrong", ["CPU", "gpu", "cuda", "mps", "cuda:one", 3.5, "meta"])
def test_a_wrong_device_is_named_with_those_present(monkeypatch, wrong):
    only(monkeypatch)
    with pytest.raises(ValueError, match=r"^prefer: got .*; this machine has 'cpu'$"):
        device.pick(wrong)


def test_a_wrong_variable_and_a_missing_second_gpu_are_named(monkeypatch):
    only(monkeypatch, "cuda")
    monkeypatch.setenv("NCLIB_DEVICE", "CPU")
    with pytest.raises(ValueError, match="^NCLIB_DEVICE: got 'CPU'"):
        device.pick()
    with pytest.raises(ValueError, match="1 CUDA devices"):
        device.pick("cuda:1")


def test_the_timer_waits_for_the_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda dev: waited.append(dev.type))
    with device.Timer("cuda") as timer:
        assert waited == ["cuda"]
    assert waited == ["cuda", "cuda"] and timer.seconds >= 0


def test_the_report_fits_a_screen_and_names_the_pick(monkeypatch):
    monkeypatch.delenv("NCLIB_DEVICE", raising=False)
    text = device.report()
    assert torch.__version__ in text and f"device        {device.pick()}" in text
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 100


def test_the_self_test_passes_here_and_fails_on_a_wrong_number_or_an_error(monkeypatch, capsys):
    assert device.self_test("cpu")
    calls = iter([1.0, 2.0])
    wrong = {"sum": lambda _: torch.tensor(next(calls)), "nan": lambda _: torch.tensor(torch.nan)}

    def broken(dev):
        raise NotImplementedError("no kernel")

    monkeypatch.setattr(device, "CHECKS", wrong | {"broken": broken})
    assert not device.self_test("cpu")
    assert capsys.readouterr().out.count("FAIL") == 3


def test_the_module_runs_by_itself_and_imports_nothing_above_it():
    code = "import sys, nclib.device; print([m for m in sys.modules if m.startswith('nclib.')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['nclib.device']"
