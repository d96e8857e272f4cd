"""Lesson 00: the checks turn typical mistakes away, and say why."""

import time

import numpy as np
import pytest
import torch

from nclib.course import verdict
from nclib.course.exercises import find


def one_liner():
    return torch.device("mps" if torch.backends.mps.is_built() else "CPU")


def by_name():
    return "cuda" if torch.cuda.is_available() else "cpu"


def no_mac():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mac_first():
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return no_mac()


def built():
    return torch.device("cuda" if torch.backends.cuda.is_built() else "cpu")


def never_waits(work, synchronize):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def waits_too_late(work, synchronize):
    synchronize()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    synchronize()
    return seconds


def counts_what_waited(work, synchronize):
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def by_process_time(work, synchronize):
    synchronize()
    start = time.process_time()
    work()
    synchronize()
    return time.process_time() - start


def forgets_the_work(work, synchronize):
    start = time.perf_counter()
    synchronize()
    return time.perf_counter() - start


def twice(work, synchronize):
    work()
    return find("00.honest_seconds").reference(work, synchronize)


def milliseconds(work, synchronize):
    return 1000 * find("00.honest_seconds").reference(work, synchronize)


def the_first(labels, per_class, seed):
    return torch.cat([(labels == c).nonzero()[:per_class, 0] for c in labels.unique()])


def not_per_class(labels, per_class, seed):
    count = per_class * len(labels.unique())
    return torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:count]


def fixed_shuffle(labels, per_class, seed):
    return find("00.stratified").reference(labels, per_class, 0)


def global_state(labels, per_class, seed):
    return find("00.stratified").reference(labels, per_class, int(torch.randint(9**9, ())))


def with_repeats(labels, per_class, seed):
    draw = torch.Generator().manual_seed(seed)
    places = [(labels == c).nonzero()[:, 0] for c in labels.unique()]
    return torch.cat([p[torch.randint(len(p), (per_class,), generator=draw)] for p in places])


def first_in_random_order(labels, per_class, seed):
    draw = torch.Generator().manual_seed(seed)
    few = [(labels == c).nonzero()[: per_class + 1, 0] for c in labels.unique()]
    return torch.cat([p[torch.randperm(len(p), generator=draw)[:per_class]] for p in few])


def one_too_few(labels, per_class, seed):
    return find("00.stratified").reference(labels, per_class, seed)[:-1]


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("00.one_liner", "the cpu", "small letters"),
        ("00.one_liner", "an mps device", "without MPS"),
        ("00.one_liner", "no idea", "choose one of"),
        ("00.pick_device", one_liner, "neither is available"),
        ("00.pick_device", by_name, "the text 'cpu'"),
        ("00.pick_device", no_mac, "only mps is available"),
        ("00.pick_device", mac_first, "both are available"),
        ("00.pick_device", built, "neither is available"),
        ("00.pick_device", lambda: torch.device("CPU"), "RuntimeError"),
        ("00.pick_device", lambda: 0, "no device"),
        ("00.honest_seconds", never_waits, "before the work is done"),
        ("00.honest_seconds", waits_too_late, "before the work is done"),
        ("00.honest_seconds", counts_what_waited, "queued before"),
        ("00.honest_seconds", forgets_the_work, "never called"),
        ("00.honest_seconds", twice, "2 times"),
        ("00.honest_seconds", milliseconds, "should be seconds"),
        ("00.honest_seconds", lambda work, wait: "fast", "never called"),
        ("00.honest_seconds", by_process_time, "stands while"),
        ("00.to_float64", lambda x: x.double().cpu(), "CPU first"),
        ("00.to_float64", lambda x: x.double(), "CPU first"),
        ("00.to_float64", lambda x: x.to(torch.float64).cpu(), "CPU first"),
        ("00.to_float64", lambda x: x.cpu(), "float64 is asked for"),
        ("00.to_float64", lambda x: x.cpu().numpy().astype("float64"), "not a tensor"),
        ("00.to_float64", lambda x: x.cpu().half().double() * 1.5, "numbers changed"),
        ("00.to_float64", lambda x: torch.from_numpy(np.float64(x)), "numpy"),
        ("00.same_seed", "every digit", "another order"),
        ("00.same_seed", "nothing", "several seeds"),
        ("00.stratified", the_first, "another seed gives the same"),
        ("00.stratified", not_per_class, "times, not 6 times"),
        ("00.stratified", fixed_shuffle, "another seed gives the same"),
        ("00.stratified", global_state, "the same seed gives another"),
        ("00.stratified", with_repeats, "comes twice"),
        ("00.stratified", first_in_random_order, "never chosen"),
        ("00.stratified", one_too_few, "18 positions"),
        ("00.stratified", lambda labels, n, seed: torch.rand(18), "whole numbers"),
    ],
)
def test_a_typical_mistake_is_rejected(name, answer, word):
    state, message = verdict(name, answer)
    assert state == "wrong" and word in message, (state, message)


def by_numpy(labels, per_class, seed):
    draw = np.random.default_rng(seed)
    places = [np.flatnonzero(labels.numpy() == c) for c in np.unique(labels.numpy())]
    return np.concatenate([draw.choice(p, per_class, replace=False) for p in places])


def with_else():
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    elif torch.backends.mps.is_available():
        return torch.device("mps")
    else:
        return torch.device("cpu")


def by_monotonic(work, synchronize):
    synchronize()
    start = time.monotonic()
    work()
    synchronize()
    return time.monotonic() - start


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("00.pick_device", with_else),
        ("00.honest_seconds", by_monotonic),
        ("00.to_float64", lambda x: x.detach().cpu().to(torch.float64)),
        ("00.to_float64", lambda x: x.to("cpu").type(torch.float64)),
        ("00.to_float64", lambda x: x.to(torch.device("cpu")).double()),
        ("00.stratified", by_numpy),
        ("00.one_liner", " An Error "),
    ],
)
def test_another_right_answer_is_accepted(name, answer):
    assert verdict(name, answer).state == "correct", verdict(name, answer)


def test_the_check_of_the_device_leaves_this_machine_as_it_was():
    before = torch.cuda.is_available(), torch.backends.mps.is_built(), time.perf_counter
    verdict("00.pick_device", with_else)
    verdict("00.honest_seconds", never_waits)
    assert (torch.cuda.is_available(), torch.backends.mps.is_built(), time.perf_counter) == before
