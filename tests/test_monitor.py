"""The monitor: windows, alarms, a log that survives SIGKILL, requests that are no numbers."""

import copy
import os
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from datetime import datetime

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

from nclib import data, models, monitor, training
from nclib.monitor import page
from nclib.plots.monitor import timeline

OPTIONS = {"every": 60, "n": 30, "tests": 8, "permutations": 99, "top": 5}


@pytest.fixture(scope="module")
def deployed():
    train, test = data.load("digits", n_train=500, device="cpu")
    model = models.build("cnn", train)
    training.fit(model, train, epochs=4, cache=False, progress=False)
    return model, test.images[:200], test.images[200:]


def test_an_attack_hour_stands_out_and_the_odd_requests_are_named(deployed, tmp_path):
    model, reference, requests = deployed
    watch = monitor.Monitor(model, None, reference, tmp_path / "log.jsonl", **OPTIONS)
    noise = torch.rand(30, *requests.shape[1:], generator=torch.Generator().manual_seed(0))
    quiet = watch.add(requests[:60], when=0.0)
    mixed = torch.cat([requests[60:90], noise])
    loud = watch.add(mixed, ids=[f"r{i}" for i in range(60)], when=3600.0)
    assert [w["alarm"] for w in quiet + loud] == [False, True]
    assert all(int(name[1:]) >= 30 for name, _ in loud[0]["suspicious"])
    assert len(loud[0]["suspicious"]) == 5
    scores = [score for _, score in loud[0]["suspicious"]]
    assert scores == sorted(scores, reverse=True)
    header, windows = monitor.read(tmp_path / "log.jsonl")
    assert header["layers"] == list(model.layer_names) and windows == watch.windows
    text = monitor.report(tmp_path / "log.jsonl")
    assert "1 of 2 windows raised an alarm" in text and "ALARM" in text


def test_a_model_with_several_linear_layers_names_its_own(deployed, tmp_path):
    _, reference, _ = deployed
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    watch = monitor.Monitor(model, None, reference, tmp_path / "log", **OPTIONS)
    assert watch.layers == ("0", "1", "2")


def test_hours_close_windows_and_small_ones_get_no_verdict(deployed, tmp_path):
    model, reference, requests = deployed
    options = {**OPTIONS, "every": None}
    watch = monitor.Monitor(model, ["conv4"], reference, tmp_path / "log", **options)
    assert watch.add(requests[:20], when=100.0) == []
    assert watch.add(requests[20:40], when=3599.0) == []
    (first,) = watch.add(requests[40:50], when=3600.0)
    assert first["requests"] == 40 and first["alarm"] is False and set(first["rates"])
    last = watch.close()
    assert last["requests"] == 10 and last["alarm"] is None and watch.close() is None
    assert watch.done == 50
    assert monitor.Monitor(model, ["conv4"], reference, tmp_path / "log", **options).done == 50


def test_windows_hold_the_same_requests_however_they_arrive(deployed, tmp_path, monkeypatch):
    model, reference, requests = deployed
    taken = {}
    for name, sizes in {"one": [200], "many": [7, 60, 1, 72, 60]}.items():
        taken[name], start = [], 0
        watch = monitor.Monitor(model, ["conv4"], reference, tmp_path / name, **OPTIONS)
        monkeypatch.setattr(
            watch, "_verdict", lambda ids, rows, _, n=name: taken[n].append((ids, rows)) or {}
        )
        for i, size in enumerate(sizes):
            watch.add(requests[start : start + size], when=float(i))
            start += size
        assert [w["requests"] for w in watch.windows] == [60, 60, 60] and watch.close()
    assert [(w["start"], w["end"]) for w in watch.windows] == [(0, 1), (1, 3), (3, 4), (4, 4)]
    for (ids, rows), (others, more) in zip(*taken.values(), strict=True):
        assert ids == others and torch.allclose(rows["conv4"], more["conv4"], atol=1e-5)
    assert [i for ids, _ in taken["many"] for i in ids] == [str(i) for i in range(200)]


@pytest.mark.parametrize(
    "name, value",
    [
        ("n", 1),
        ("tests", 0),
        ("seconds", 0),
        ("seconds", float("nan")),
        ("alarm_rate", 0),
        ("alarm_rate", 1.5),
        ("top", -1),
    ],
)
def test_settings_that_no_window_could_use_are_refused_at_once(deployed, tmp_path, name, value):
    model, reference, _ = deployed
    with pytest.raises(ValueError, match=f"^{name}: got {value}"):
        monitor.Monitor(model, None, reference, tmp_path / "log", **{**OPTIONS, name: value})
    assert not (tmp_path / "log").exists()


def test_time_never_runs_back_into_a_closed_window(deployed, tmp_path):
    model, reference, requests = deployed

    def make():
        return monitor.Monitor(model, ["conv4"], reference, tmp_path / "log", **OPTIONS)

    watch = make()
    assert len(watch.add(requests[:60], when=100.0)) == 1
    for one in (watch, make()):
        with pytest.raises(ValueError, match="when: got 99.0; finite seconds from 100.0 on"):
            one.add(requests[:3], when=99.0)


def test_a_restart_with_something_else_is_refused(deployed, tmp_path):
    model, reference, requests = deployed
    log = tmp_path / "log"
    monitor.Monitor(model, None, reference, log, **OPTIONS).add(requests[:60])
    before = log.read_bytes()
    other = models.build("cnn", data.load("digits", n_train=100, device="cpu")[0], seed=5)
    for change, word in [
        ({"model": other}, "model"),
        ({"layers": ["conv1"]}, "layers"),
        ({"reference": reference[:150]}, "reference"),
        ({"options": {**OPTIONS, "seed": 3}}, "settings"),
        ({"options": {**OPTIONS, "alarm_rate": 0.9}}, "settings"),
        ({"options": {**OPTIONS, "top": 1}}, "settings"),
    ]:
        chosen = {
            "model": model,
            "layers": None,
            "reference": reference,
            "options": OPTIONS,
        } | change
        with pytest.raises(ValueError, match=word):
            monitor.Monitor(
                chosen["model"], chosen["layers"], chosen["reference"], log, **chosen["options"]
            )
    assert log.read_bytes() == before


def feed(watch, requests, until=180):
    """In batches of a window: the features depend on the batch in the last digit."""
    for start in range(watch.done, until, 60):
        watch.add(requests[start : start + 60])


def test_a_log_goes_on_from_any_window_as_if_it_had_never_stopped(deployed, tmp_path):
    model, reference, requests = deployed

    def make(name):
        return monitor.Monitor(model, None, reference, tmp_path / name, **OPTIONS)

    feed(make("whole"), requests)
    for stop in (0, 60, 120):
        feed(make(f"cut {stop}"), requests, stop)
        feed(make(f"cut {stop}"), requests)
        assert monitor.read(tmp_path / f"cut {stop}") == monitor.read(tmp_path / "whole")


def test_a_batch_that_failed_is_absent_and_counts_once_when_sent_again(deployed, tmp_path):
    model, reference, requests = deployed
    watch = monitor.Monitor(model, ["conv4"], reference, tmp_path / "log", **OPTIONS)
    watch.add(requests[:40])
    batch, ids = requests[:150], [f"r{i}" for i in range(150)]  # closes three windows
    add = watch._journal.add
    watch._journal.add = lambda entries, **_: add(entries | {"0": {"x": object()}})
    with pytest.raises(ValueError, match="entry"):
        watch.add(batch, ids)
    watch._journal.add = lambda *_, **__: (_ for _ in ()).throw(OSError("full"))
    with pytest.raises(OSError, match="full"):
        watch.add(batch, ids)
    assert watch.done == 0 and watch._waiting == 40
    with pytest.raises(OSError, match="full"):
        watch.close()
    watch._journal.add = add
    assert len(watch.add(batch, ids)) == 3 and watch.close()["requests"] == 10
    _, windows = monitor.read(tmp_path / "log")
    assert windows == watch.windows and sum(w["requests"] for w in windows) == 190


def test_of_two_monitors_on_one_log_the_second_to_write_is_refused(deployed, tmp_path):
    model, reference, requests = deployed

    def make():
        return monitor.Monitor(model, ["conv4"], reference, tmp_path / "log", **OPTIONS)

    first, second = make(), make()
    first.add(requests[:60])
    for _ in range(2):
        with pytest.raises(ValueError, match="log: .*has one of the entries 0 already"):
            second.add(requests[60:120])
    assert second.windows == [] and monitor.read(tmp_path / "log")[1] == first.windows
    assert make().add(requests[60:120])[0]["window"] == 1


class Fragile(torch.nn.Module):
    """Its features are infinite for an image whose first pixel is white."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = torch.nn.Flatten(), torch.nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.body(x / (x[:, :, :1, :1] < 1)))


def test_requests_that_are_not_finite_are_suspicious_and_the_windows_go_on(deployed, tmp_path):
    _, reference, requests = deployed
    reference, requests = reference.clone(), requests.clone()
    reference[:, :, 0, 0] = requests[:, :, 0, 0] = 0
    options = OPTIONS | {"every": 40}
    watch = monitor.Monitor(Fragile(), ["body"], reference, tmp_path / "log", **options)
    requests[5, :, 0, 0] = 1  # the model overflows
    requests[7, 0, 3, 3] = float("nan")
    requests[50:80, 0, 3, 3] = float("inf")
    (first,) = watch.add(requests[:40])
    assert first["not_finite"] == ["5", "7"] and first["alarm"] is False and first["rates"]
    assert first["suspicious"][:2] == [["5", None], ["7", None]] and len(first["suspicious"]) == 5
    (second,) = watch.add(requests[40:80])  # ten are left: too few for a test
    assert second["alarm"] is True and len(second["not_finite"]) == 30 and second["rates"] == {}
    assert watch.add(requests[50:60]) == [] and watch.close()["alarm"] is None
    assert monitor.read(tmp_path / "log")[1] == watch.windows
    assert "not finite: 30" in monitor.report(tmp_path / "log")
    ax = timeline(watch.windows)
    assert sum(isinstance(p, matplotlib.patches.Rectangle) for p in ax.patches) == 1
    with pytest.raises(ValueError, match="reference: "):
        monitor.Monitor(Fragile(), ["body"], reference + 1e-3 + 1, tmp_path / "b", **options)
    reference[0, :, 0, 0] = 1
    with pytest.raises(ValueError, match="reference: NaN or infinite"):
        monitor.Monitor(Fragile(), ["body"], reference, tmp_path / "b", **options)


BAD_TIMES = [
    float("nan"),
    float("inf"),
    -float("inf"),
    10**400,
    "12",
    None,
    True,
    datetime(2026, 1, 1),
]


@pytest.mark.parametrize("when", BAD_TIMES, ids=lambda when: str(when)[:12])
def test_a_time_that_cannot_be_written_is_refused_on_entry(deployed, tmp_path, when):
    model, reference, requests = deployed
    watch = monitor.Monitor(model, ["conv4"], reference, tmp_path / "log", **OPTIONS)
    watch.add(requests[:30])
    with pytest.raises(ValueError, match="^when: got "):
        watch.add(requests[30:60], when=when)
    assert watch._waiting == 30
    for number in (np.float32(1.5), torch.tensor(2.0), np.int64(3)):
        watch.add(requests[30:40], when=number)
    assert watch.windows[0]["end"] == 3.0
    assert monitor.read(tmp_path / "log")[1] == watch.windows


def test_scalars_of_numpy_and_torch_are_numbers(deployed, tmp_path):
    model, reference, requests = deployed
    options = {"every": np.int64(60), "n": torch.tensor(30), "tests": np.int32(8)}
    options |= {"permutations": np.int64(99), "top": np.int64(5)}
    watch = monitor.Monitor(model, None, reference, tmp_path / "log", **options)
    watch.add(requests[:60])
    assert monitor.Monitor(model, None, reference, tmp_path / "log", **OPTIONS).done == 60


def test_the_same_model_goes_on_when_it_is_frozen_or_torch_is_new(deployed, tmp_path, monkeypatch):
    model, reference, requests = deployed
    model = copy.deepcopy(model)
    monitor.Monitor(model, None, reference, tmp_path / "log", **OPTIONS).add(requests[:60])
    model.requires_grad_(False)
    monkeypatch.setattr(torch, "__version__", "99.1")
    assert monitor.Monitor(model, None, reference, tmp_path / "log", **OPTIONS).done == 60
    model.fc.bias += 1e-6
    with pytest.raises(ValueError, match="belongs to something else .model: "):
        monitor.Monitor(model, None, reference, tmp_path / "log", **OPTIONS)


def test_sigkill_loses_no_finished_window(tmp_path):
    log = tmp_path / "log"
    script = textwrap.dedent(f"""
        import torch
        from nclib import data, models, monitor
        train, test = data.load("digits", n_train=200, device="cpu")
        watch = monitor.Monitor(models.build("cnn", train), ["conv4"], test.images[:100],
            {str(log)!r},
            every=20, n=20, tests=2, permutations=19)
        print("resumed at", watch.done, flush=True)
        while True:
            for window in watch.add(test.images[100:120]):
                print(window["window"], flush=True)
    """)
    expected = 0
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert child.stdout.readline() == f"resumed at {20 * expected}\n"
        for _ in range(15):
            last = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().split()  # what it still said before the signal came
        child.wait()
        said = max([last, *(int(word) for word in rest[:-1])])
        windows = monitor.read(log)[1]
        assert [w["window"] for w in windows] == list(range(len(windows)))
        assert len(windows) > said >= expected + 14  # each window that was announced is on the disk
        expected = len(windows)


def test_a_kill_loses_no_request_that_was_captured(deployed, tmp_path):
    model, reference, requests = deployed
    options = {**OPTIONS, "every": None, "capture": True}
    requests = requests.clone()
    requests[3, 0, 0, 0] = float("nan")

    def make(name):
        return monitor.Monitor(model, ["conv4"], reference, tmp_path / name, **options)

    whole = make("whole")
    for i in range(6):  # three hours, two batches each; each batch with another monitor
        batch, when = requests[30 * i : 30 * (i + 1)], 1800.0 * i
        whole.add(batch, when=when)
        make("cut").add(batch, when=when)
        assert make("cut")._waiting == whole._waiting == 30 * (1 + i % 2)
    assert whole.close() == make("cut").close()
    assert monitor.read(tmp_path / "cut") == monitor.read(tmp_path / "whole")
    first = make("cut").windows[0]
    assert first["not_finite"] == ["3"] and len(make("cut").windows) == 3
    assert set(first["pictures"]) == {name for name, _ in first["suspicious"]}
    assert make("cut")._waiting == 0 and monitor.read_all(tmp_path / "cut")[2] == 0


def test_captured_windows_by_count_go_on_in_the_middle_of_a_batch(deployed, tmp_path):
    model, reference, requests = deployed
    options = {**OPTIONS, "capture": True}
    for start in range(0, 170, 34):
        watch = monitor.Monitor(model, ["conv4"], reference, tmp_path / "log", **options)
        watch.add(requests[start : start + 34])
    assert [w["requests"] for w in watch.windows] == [60, 60] and watch._waiting == 50
    again = monitor.Monitor(model, ["conv4"], reference, tmp_path / "log", **options)
    assert again._waiting == 50 and again._chunks[0][0][0] == "120"
    assert torch.equal(torch.cat([c[3] for c in again._chunks]), requests[120:170])
    plain = monitor.Monitor(model, ["conv4"], reference, tmp_path / "log", **OPTIONS)
    assert plain._waiting == 0 and "pictures" not in plain.add(requests[:60])[0]


def test_the_page_escapes_what_the_log_says_and_shows_the_last_day(deployed, tmp_path):
    model, reference, requests = deployed
    options = {**OPTIONS, "capture": True}
    watch = monitor.Monitor(model, None, reference, tmp_path / "log", **options)
    noise = torch.rand(60, *requests.shape[1:], generator=torch.Generator().manual_seed(0))
    watch.add(noise, when=0.0)  # an alarm of the day before
    watch.add(requests[:60], when=90000.0)
    watch.add(noise, ids=["<script>alert('x')</script>"] * 60, when=93600.0)
    watch.add(requests[:7], when=93601.0)
    shown = page.page(tmp_path / "log")
    assert "2 windows in the last day, 1 violations" in shown and "7 requests captured" in shown
    assert "<script" not in shown and "&lt;script&gt;" in shown
    assert shown.count('<img src="data:image/png;base64,') == 5
    assert "&amp;lt;" not in shown and "Violation in window 2" in shown


def visit(address, host=None):
    asked = urllib.request.Request(address, headers={"Host": host} if host else {})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        asked, timeout=20
    ) as got:
        return got.headers, got.read().decode()


def test_the_page_is_served_to_this_machine_alone_and_outlives_a_kill(deployed, tmp_path):
    model, reference, requests = deployed
    log = tmp_path / "log"
    watch = monitor.Monitor(model, None, reference, log, **OPTIONS)
    watch.add(requests[:60])
    before = log.read_bytes()
    for windows, name in ((1, ["nclib", "monitor"]), (2, ["nclib.monitor"])):
        child = subprocess.Popen(
            [sys.executable, "-m", *name, "serve", log],
            stdout=subprocess.PIPE,
            text=True,
        )
        address = child.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        headers, shown = visit(address)
        assert f"{windows} windows in the last day" in shown
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        for where, host in ((address + "etc/passwd", None), (address, "evil.example")):
            with pytest.raises(urllib.error.HTTPError, match="40[34]"):
                visit(where, host)
        child.kill()
        child.wait()
        assert windows == 2 or log.read_bytes() == before
        watch.add(requests[60:120])
    missing = subprocess.run(
        [sys.executable, "-m", "nclib", "monitor", "serve", tmp_path / "none"],
        capture_output=True,
        text=True,
    )
    assert missing.returncode == 2 and "Traceback" not in missing.stderr


def test_damaged_logs_and_bad_arguments_are_refused(deployed, tmp_path):
    model, reference, requests = deployed
    for text in ('{"some": "file"}\n', '{"only": "copy"}'):
        (tmp_path / "other").write_text(text)
        for call in (
            lambda: monitor.read(tmp_path / "other"),
            lambda: monitor.Monitor(model, None, reference, tmp_path / "other", **OPTIONS),
        ):
            with pytest.raises(ValueError, match="log: .* is no journal"):
                call()
        assert (tmp_path / "other").read_text() == text
    with pytest.raises(ValueError, match="reference"):
        monitor.Monitor(model, None, reference[:40], tmp_path / "a", **OPTIONS)
    with pytest.raises(ValueError, match="every"):
        monitor.Monitor(model, None, reference, tmp_path / "a", **{**OPTIONS, "every": 10})
    with pytest.raises(ValueError, match="layers"):
        monitor.Monitor(model, ["conv9"], reference, tmp_path / "a", **OPTIONS)
    watch = monitor.Monitor(model, None, reference, tmp_path / "a", **OPTIONS)
    with pytest.raises(ValueError, match="ids"):
        watch.add(requests[:3], ids=["a"])
    watch.add(requests[:3], when=10.0)
    with pytest.raises(ValueError, match="when"):
        watch.add(requests[:3], when=9.0)
    with pytest.raises(ValueError, match="images"):
        watch.add(requests[:3] + 9)


def test_the_command_line(deployed, tmp_path):
    model, reference, requests = deployed
    log = tmp_path / "day.jsonl"
    monitor.Monitor(model, None, reference, log, **OPTIONS).add(requests[:120])
    run = [sys.executable, "-m", "nclib", "monitor", "report"]
    done = subprocess.run([*run, log], capture_output=True, text=True)
    assert done.returncode == 0 and "2 windows" in done.stdout, done.stderr
    assert (tmp_path / "day.png").stat().st_size > 1000
    own = tmp_path / "own.png"
    own.write_text("only copy")
    refused = subprocess.run([*run, log, "--figure", own], capture_output=True, text=True)
    assert refused.returncode == 2 and "is there and no picture" in refused.stderr
    assert own.read_text() == "only copy"
    missing = subprocess.run([*run, tmp_path / "none"], capture_output=True, text=True)
    assert missing.returncode == 2 and "Traceback" not in missing.stderr
