"""The audit, tried on folders whose state is known: data/results/audit.csv.

``make results-audit`` walks set x poison x rate x seed. A row is one folder of image files, written
for it, and what ``python -m nclib audit FOLDER`` says of it: the verdict, the images that it names,
CPU seconds and peak memory, each in a process of its own; beside it what cleanlab's Datalab (given
the audit's features and out-of-fold probabilities) and cleanvision flag in the same folder.
A check of cleanvision that flags every image does not count.
Finished rows are kept; ``--minutes`` ends the walk. ``--large 200000`` measures time and memory on
so many images of 64 x 64 instead, with two epochs a training; ``--controls digits signs`` plants
known poison there and counts; ``--report`` writes the tables of docs/audit.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import multiprocessing
import os
import re
import resource
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from experiments.table import RESULTS, Table, facts
from experiments.transplant import poison
from nclib import audit, data, models, poisons, training
from nclib.audit import looks, sources
from nclib.data import ImageSet
from nclib.detection import out_of_fold
from nclib.device import pick

KEY = ("dataset", "poison", "rate", "seed")
RATES = {"clean": (0.0,), "badnets": (0.01, 0.05, 0.1), "blended": (0.02, 0.05, 0.1)}
RATES |= {"flip": (0.05, 0.1, 0.2), "clean_label": (0.02, 0.05, 0.08), "sig": (0.02, 0.05, 0.1)}
RATES |= {"wanet": (0.05, 0.1, 0.2), "adaptive_blend": (0.02, 0.05, 0.1)}
RATES |= {"adaptive_patch": (0.02, 0.05, 0.1), "input_aware": (0.02, 0.05, 0.1)}
SETS = ("digits", "signs", "mnist", "faces", "two signs", "100 numbers", "one of 90%")
EPOCHS = 12


# sets


def faces(people: int = 40, each: int = 15, side: int = 32, seed: int = 0) -> ImageSet:
    """Drawn grey faces, as many as Olivetti's and half as wide: the person is the class.

    A face is a few ellipses whose sizes and tones are the person's; place, turn, light, mouth and
    noise are the picture's.
    """
    draw = np.random.default_rng(seed)
    person = np.repeat(draw.uniform(-1, 1, (people, 12)), each, 0)
    shown = draw.uniform(-1, 1, (people * each, 8))
    turn, x, y = 0.12 * shown[:, 0], *np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j][::-1]
    x, y = x[None] - 0.08 * shown[:, 1, None, None], y[None] - 0.08 * shown[:, 2, None, None]
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    x, y = cos * x + sin * y, cos * y - sin * x
    image = np.full(x.shape, 0.35) + 0.1 * shown[:, 3, None, None] * x

    def ellipse(tone: Any, across: Any, down: Any, wide: Any, tall: Any) -> None:
        tone, across, down, wide, tall = (
            np.broadcast_to(v, len(x))[:, None, None] for v in (tone, across, down, wide, tall)
        )
        inside = 1 - np.hypot((x - across) / wide, (y - down) / tall)
        image[:] += (tone - image) * (0.5 + np.tanh(6 * inside) / 2)

    p = person.T
    ellipse(0.25 + 0.2 * p[0], 0, -0.25, 0.62 + 0.1 * p[1], 0.7)
    ellipse(0.65 + 0.12 * p[2], 0, 0.05, 0.5 + 0.1 * p[3], 0.68 + 0.1 * p[4])
    for way in (-1, 1):
        apart = way * (0.22 + 0.05 * p[5])
        ellipse(0.12 + 0.1 * p[6], apart, -0.1 + 0.05 * p[7], 0.1, 0.06 + 0.02 * shown[:, 4])
        ellipse(0.2, apart, -0.25 + 0.05 * p[8], 0.14, 0.035 + 0.015 * p[9])
    ellipse(0.5, 0, 0.12, 0.06, 0.13 + 0.04 * p[10])
    ellipse(0.3, 0, 0.4, 0.18 + 0.05 * p[11], 0.05 + 0.03 * shown[:, 5])
    image *= 1 + 0.3 * shown[:, 6, None, None] * x + 0.15 * shown[:, 7, None, None]
    image = np.clip(image + draw.normal(0, 0.02, image.shape), 0, 1)
    labels = torch.arange(people).repeat_interleave(each)
    names = tuple(f"person {i:02}" for i in range(people))
    return ImageSet(torch.from_numpy(image).float()[:, None], labels, names, "faces")


def numbers(each: int = 15, seed: int = 0) -> ImageSet:
    """The numbers 00 to 99, each of two handwritten digits of 8 x 8 pixels side by side."""
    train, test = data.load("digits", device="cpu")
    images, labels = torch.cat([train.images, test.images]), torch.cat([train.labels, test.labels])
    draw = torch.Generator().manual_seed(seed)
    value = torch.arange(100).repeat_interleave(each)
    pairs = []
    for digit in (value // 10, value % 10):
        known = [(labels == d).nonzero().flatten() for d in range(10)]
        pick_ = [int(known[d][torch.randint(len(known[d]), (), generator=draw)]) for d in digit]
        pairs.append(images[pick_])
    names = tuple(f"{i:02}" for i in range(100))
    return ImageSet(torch.cat(pairs, 3), value, names, "100 numbers")


def first(found: ImageSet, counts: list[int]) -> tuple[ImageSet, ImageSet]:
    """The first ``counts[c]`` images of each class, and all others."""
    mask = torch.zeros(len(found), dtype=torch.bool)
    for c, count in enumerate(counts):
        mask[(found.labels == c).nonzero().flatten()[:count]] = True
    return found.subset(mask), found.subset(~mask)


def loaded(name: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Train and test of a set of ``SETS``, or of ``folder:PATH``."""
    if name == "faces":
        return first(faces(seed=seed), [10] * 40)
    if name == "100 numbers":
        return first(numbers(seed=seed), [10] * 100)
    if name == "two signs":
        train, test = data.load("signs", n_train=2000, n_test=500, seed=seed, device="cpu")
        return tuple(_two(part) for part in (train, test))  # type: ignore[return-value]
    if name == "one of 90%":
        train, test = data.load("signs", n_train=4950, n_test=500, seed=seed, device="cpu")
        return first(train, [495] + [6] * 9)[0], test
    sizes = {"digits": (None, None), "signs": (1000, 500), "mnist": (1000, 500)}
    n_train, n_test = sizes.get(name, (2000, 500))
    return data.load(name, n_train=n_train, n_test=n_test, seed=seed, device="cpu")


def _two(found: ImageSet) -> ImageSet:
    part = found.subset(found.labels < 2)
    return ImageSet(part.images, part.labels, part.classes[:2], "two signs")


# a row


def written(found: ImageSet, root: Path, suffix: str) -> None:
    """A folder per class; the file's name is the position."""
    for i, (image, label) in enumerate(zip(found.images, found.labels.tolist(), strict=True)):
        folder = root / found.classes[label].replace("/", " ")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze()).save(folder / f"{i:06}.{suffix}", quality=95)


def prepared(name: str, kind: str, rate: float, seed: int, place: Path) -> None:
    """Poison the set, write the folder, and keep the truth beside it."""
    train, test = loaded(name, seed)
    dirty = poison(train, kind, rate, EPOCHS, seed)
    written(dirty, place / "set", "jpg" if name.startswith("folder:") else "png")
    torch.save((dirty, test), place / "truth")


def audited(kind: str, seed: int, place: Path) -> dict[str, Any]:
    """What the audit says of the folder, what it costs, and what its peers say."""
    dirty, test = torch.load(place / "truth", weights_only=False)
    os.environ["NCLIB_CACHE"] = str(place / "runs")  # nothing is trained ahead
    start = time.process_time()
    found = audit.run(place / "set", epochs=EPOCHS, seed=seed, progress=False)
    found.save(place / "report")
    row = {"cpu_seconds": round(time.process_time() - start, 1), "peak_mb": peak()}
    at = torch.tensor([int(Path(name).stem) for name in found.source.names])
    bad, named = dirty.harmful.cpu(), torch.zeros(len(dirty), dtype=torch.bool)
    named[at[[suspect.at for suspect in found.suspects]]] = True
    accused = {found.data.classes[c] for c in found.verdict.classes}
    target = () if dirty.target is None else (dirty.classes[dirty.target],)
    wanted = {"clean": ("clean", set()), "flip": ("wrong labels", set())}
    row |= {
        "images": len(dirty),
        "classes": dirty.num_classes,
        "call": found.call,
        "accused": " ".join(sorted(accused)),
        "right": int((found.call, accused) == wanted.get(kind, ("backdoor", set(target)))),
        "strange": " ".join(sorted({found.data.classes[f.label] for f in found.strange})),
        "poisoned": int(bad.sum()),
        "hit": int((named & bad).sum()),
        "false": int((named & ~bad).sum()),
        "trainings": found.verdict.trainings + 2,
    }
    if dirty.trigger is not None:  # does the attack succeed at all, in a training like the audit's?
        names = [name.replace("/", " ") for name in dirty.classes]  # the folders' order is another
        order = torch.tensor([names.index(name) for name in found.data.classes])
        part = ImageSet(found.data.images, order[found.data.labels], dirty.classes)
        model = _cnn(part, seed + 200)
        steps: dict[str, Any] = {"lr": 0.05, "batch_size": min(128, max(8, len(part) // 40))}
        training.fit(model, part, epochs=EPOCHS, seed=seed + 200, progress=False, **steps)
        row["success"] = round(poisons.metrics.success(model, dirty, test), 4)
    return row | peers(found, place / "set", bad[at][found.reading.index], bad)


def _cnn(part: ImageSet, seed: int) -> torch.nn.Module:
    return models.build("cnn", part, seed=seed)


def peak() -> int:
    """The largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def peers(found: audit.Audit, folder: Path, bad: Tensor, truth: Tensor) -> dict[str, Any]:
    """What Datalab and cleanvision flag: how many images, and how many of these are poisoned."""
    from cleanlab import Datalab
    from cleanvision import Imagelab

    row, start = {}, time.process_time()
    early, late = looks.trained(found.data, _cnn, EPOCHS, found.options["seed"])
    joined = torch.cat(list(early.values())[1:], 1)
    likely = out_of_fold(joined, found.data.labels)
    with quiet():
        lab = Datalab({"label": found.data.labels.numpy()}, label_name="label", verbosity=0)
        lab.find_issues(features=list(late.values())[-1].numpy(), pred_probs=likely.numpy())
        vision = Imagelab(data_path=str(folder), verbose=False)
        vision.find_issues(n_jobs=1, verbose=False)
    flags = lab.get_issues().filter(regex="^is_.*_issue$")
    flags = flags.drop(columns="is_non_iid_issue", errors="ignore")  # a statement on the whole set
    label = torch.from_numpy(flags.pop("is_label_issue").to_numpy(bool))
    other = torch.from_numpy(flags.to_numpy(bool).any(1))
    seen = vision.issues.filter(regex="^is_.*_issue$")
    seen = seen.loc[:, ~seen.all()].any(axis=1)  # "grey" of every image tells none apart
    seen = torch.tensor([int(Path(name).stem) for name in seen.index[seen]], dtype=torch.int64)
    row = {"datalab_labels": int(label.sum()), "datalab_labels_hit": int((label & bad).sum())}
    row |= {"datalab_other": int(other.sum()), "datalab_other_hit": int((other & bad).sum())}
    row |= {"cleanvision": len(seen), "cleanvision_hit": int(truth[seen].sum())}
    return row | {"peers_cpu_seconds": round(time.process_time() - start, 1)}


@contextlib.contextmanager
def quiet() -> Any:
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield


def apart(work: Any, *arguments: Any) -> Any:
    """``work(*arguments)`` in a process of its own, so that its memory can be told."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(work, *arguments).result()


def run(job: tuple[str, str, float, int], folder: Path) -> None:
    """Measure one row, unless it is there."""
    name, kind, rate, seed = job
    table = Table("audit", KEY, folder)
    key = dict(zip(KEY, (name.split("/")[-1], kind, rate, seed), strict=True))
    if table.has(**key):
        return
    with tempfile.TemporaryDirectory() as place:
        try:
            apart(prepared, name, kind, rate, seed, Path(place))
            row = apart(audited, kind, seed, Path(place))
        except ValueError as error:  # a rate that the classes cannot fill, or that empties them
            print(*job, error, flush=True)
            return
    table.append(key | row | facts(pick()))
    print(*job, row["call"], row["accused"], row["cpu_seconds"], "s", flush=True)


def large(count: int, folder: Path) -> None:
    """One row on ``count`` images of 64 x 64: 2,000 drawn signs, shifted anew each time."""
    key = dict(zip(KEY, (f"{count} of 64 x 64", "clean", 0.0, 0), strict=True))
    row = apart(_counted, count)
    Table("audit", KEY, folder).append(key | row | facts(pick()))


def _counted(count: int) -> dict[str, Any]:
    few = data.load("signs", n_train=2000, size=64, device="cpu")[0]
    one, n = sources.source(few), len(few)
    pixels = [one.picture(i) for i in range(n)]
    many = dataclasses.replace(
        one,
        names=[f"image {i}" for i in range(count)],
        labels=[one.labels[i % n] for i in range(count)],
        is_test=[False] * count,
        picture=lambda i: pixels[i % n].roll(i // n, 2),
    )
    del few, one
    with tempfile.TemporaryDirectory() as place:
        os.environ["NCLIB_CACHE"] = str(Path(place, "runs"))
        start = time.process_time()
        found = audit.run(many, epochs=2, progress=False)
        found.save(Path(place, "report"))
    row = {"cpu_seconds": round(time.process_time() - start, 1), "peak_mb": peak()}
    print(found.seconds, *found.reading.notes, sep="\n", flush=True)
    row |= {"images": count, "classes": len(many.classes), "call": found.call}
    trained = {} if found.verdict is None else {"trainings": found.verdict.trainings + 2}
    return row | trained | {"false": len(found.suspects)}


def controls(name: str, folder: Path, runs: int = 3, seed: int = 0) -> None:
    """The counts of planted controls on the clean set: data/results/audit_controls.csv."""
    table = Table("audit_controls", ("dataset", "kind"), folder)
    if table.has(dataset=name, kind="accused"):
        return
    start = time.process_time()
    planted = audit.run(
        loaded(name, seed)[0], epochs=EPOCHS, seed=seed, controls=runs, progress=False
    ).planted
    cost = {"trainings": planted.trainings, "cpu_seconds": round(time.process_time() - start, 1)}
    for kind, (hits, tried) in (planted.found | {"accused": planted.accused}).items():
        row = {"dataset": name, "kind": kind, "times": hits, "of": tried}
        table.append(row | cost | facts(pick()))


PAGE = Path(__file__).resolve().parents[1] / "docs" / "audit.md"
HEAD = ("set", "poison", "rate", "verdict", "succeeds", "poisoned", "the audit names")
HEAD += ("Datalab: labels", "Datalab: other", "cleanvision", "CPU s", "MB")


def report(rows: list[dict[str, str]]) -> str:
    """The trials as a table, a line for each poison of a set; "a of b": b named, a of them bad."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    kinds = dict.fromkeys((row["dataset"], row["poison"]) for row in rows if row["right"])
    for kind in sorted(kinds, key=lambda kind: (kind[0], list(RATES).index(kind[1]))):
        mine = [row for row in rows if (row["dataset"], row["poison"]) == kind]
        mine.sort(key=lambda row: (float(row["rate"]), int(row["seed"])))
        cells = zip(*map(_told, mine), strict=True)
        joined = [one[0] if len(set(one)) == 1 else " / ".join(one) for one in cells]
        lines.append(f"| {' | '.join([*kind, *joined])} |")
    return "\n".join(lines)


def _told(row: dict[str, str]) -> list[str]:
    def of(hit: str, named: str) -> str:
        return f"{row[hit]} of {row[named]}" if row.get(named) else "-"

    row = row | {"named": str(int(row["hit"] or 0) + int(row["false"]))}
    called = {"backdoor": f"backdoor in {row['accused']}"}.get(row["call"], row["call"])
    verdict = "right" if row["right"] == "1" else called
    success = f"{float(row['success']):.0%}" if row.get("success") else "-"
    pairs = [("hit", "named")]
    pairs += [(f"{n}_hit", n) for n in ("datalab_labels", "datalab_other", "cleanvision")]
    counts = [of(*pair) for pair in pairs]
    cost = [f"{float(row['cpu_seconds']):.0f}", row["peak_mb"]]
    return [f"{float(row['rate']):.0%}", verdict, success, row["poisoned"] or "0", *counts, *cost]


def odds(rows: list[dict[str, str]]) -> str:
    """The counts of the planted controls, with their exact 95% intervals."""
    lines = ["| set | planted | found | interval |", "|---|---|---|---|"] if rows else []
    for row in rows:
        hits, of = int(row["times"]), int(row["of"])
        _, low, high = poisons.metrics.hit_rate(hits, of)
        kind = row["kind"].replace("accused", "nothing (a class without a trigger is accused)")
        lines.append(f"| {row['dataset']} | {kind} | {hits} of {of} | {low:.0%} to {high:.0%} |")
    return "\n".join(lines)


def put(name: str, table: str, page: Path = PAGE) -> None:
    """Write the table between the marks of that name on the page."""
    mark = re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)
    text = mark.sub(
        lambda found: f"{found[1]}{table}\n{found[2]}", page.read_text(encoding="utf-8")
    )
    page.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(SETS), help="names, or folder:PATH")
    parser.add_argument("--poisons", nargs="+", help="names, or name:rate")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="CPU minutes at most")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="write docs/audit.md from the rows")
    parser.add_argument("--controls", nargs="+", default=[], help="plant controls in these sets")
    parser.add_argument("--large", type=int, metavar="N", help="N images of 64 x 64, nothing else")
    options = parser.parse_args()
    if options.report:
        put("trials", report(list(Table("audit", KEY, options.out).rows.values())))
        rows = Table("audit_controls", ("dataset", "kind"), options.out).rows
        put("odds", odds(list(rows.values())))
        return
    for name in options.controls:
        controls(name, options.out)
    if options.controls:
        return
    if options.large:
        large(options.large, options.out)
        return
    jobs = [
        (name, kind, rate, seed)
        for seed in options.seeds
        for name in options.sets
        for kind, rates in RATES.items()
        for rate in rates
        if not options.poisons or {kind, f"{kind}:{rate:g}"} & set(options.poisons)
    ]
    for job in jobs:
        if sum(os.times()[:4]) < 60 * options.minutes:
            run(job, options.out)


if __name__ == "__main__":
    main()
