"""What needs a GPU, in ten minutes of one: ``make results-gpu ARGS="ARCHIVE OUT.tar.gz"``.

ARCHIVE holds CIFAR-10 as one folder per class below train/ and test/ (tar, packed or not; or the
folder it was unpacked to, which is read once and kept); no network is needed. The jobs of ``JOBS``
run in the order of their value until the time is over. Each writes its rows as they come, into a
folder beside OUT.tar.gz, from which the next run goes on after a kill.
``python -m experiments.gpu --take OUT.tar.gz`` puts the rows into data/results.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock

from experiments.photographs import (
    Photographs,
    attacks,
    board,
    collapse,
    features,
    layers,
    photographs,
    poisons,
    purification,
    speed,
)
from experiments.table import RESULTS, Table
from nclib import device, places

Left = Callable[[], float]  # seconds until the time is over
Job = Callable[[Photographs, Path, Left], None]
MORE = (1, 2)  # seeds beyond the first, which a dry run leaves out
LIMIT = 16e6  # bytes of the archive that comes back


def collapse_job(photos: Photographs, out: Path, left: Left, seeds: tuple[int, ...] = (0,)) -> None:
    """All images and 5,000, at both decays; ResNet-18, as published, for the first seed."""
    whole = {"n_train": len(photos.train), "epochs": 64, "lr": 0.2, "batch_size": 512}
    few = {"n_train": 5000, "epochs": 32}
    if dry := len(photos.train) < 5000:
        whole["epochs"] = 1
    for seed in seeds:
        runs = [("fast", decay, size) for size in (whole, few) for decay in collapse.DECAYS]
        runs.insert(1, ("resnet18", collapse.DECAYS[0], whole))
        if dry:  # each network once
            runs = runs[:2]
        if seed > 0:
            runs = [] if dry else [run for run in runs if run[0] == "fast"]
        for arch, decay, plan in runs:
            if left() > (150 if arch == "resnet18" else 80):  # seconds
                rows = collapse.table(out)
                collapse.run(photos, rows, arch=arch, weight_decay=decay, seed=seed, **plan)


def speed_job(photos: Photographs, out: Path, left: Left) -> None:
    """The schedules of the fast network and of ResNet-18."""
    dry = len(photos.train) < 5000
    schedules = {"fast": (1,)} if dry else speed.SCHEDULES
    for arch, epochs in ((arch, n) for arch, counts in schedules.items() for n in counts):
        if left() > 60:
            speed.run(photos, speed.table(out), arch, epochs, warm=not dry)


def features_job(photos: Photographs, out: Path, left: Left) -> None:
    """What lessons show of photographs in seconds."""
    if left() > 40:
        features.run(photos, out)


def layers_job(
    photos: Photographs,
    out: Path,
    left: Left,
    seeds: tuple[int, ...] = (0,),
    archs: tuple[str, ...] = ("fast",),
) -> None:
    """The layer tests of so many networks."""
    for seed in seeds:
        for arch in archs:
            if left() > 60 and not (photos.dry and seed in MORE):
                layers.run(photos, layers.table(out), arch, seed)


def poisons_job(
    photos: Photographs, out: Path, left: Left, attack: Callable[..., None], *arguments: object
) -> None:
    """``attack`` for each of the arguments: a seed, or the name of an attack at single images."""
    for argument in arguments:
        if photos.dry and argument in MORE:
            continue
        attack(photos, poisons.table(out), argument, left)


def attacks_job(photos: Photographs, out: Path, left: Left, *networks: str) -> None:
    """The attacks on each of the networks, on 500 test images."""
    for network in networks:
        if left() > 30:
            attacks.run(photos, attacks.table(out), network)


def certified_job(photos: Photographs, out: Path, left: Left, n: int) -> None:
    """The certified radii of 500 test images from ``n`` draws, at both deviations."""
    for sigma in attacks.SIGMAS:
        if left() > 20 + n / 300:
            draws, images = (n // 100, 10) if photos.dry else (n, 500)
            attacks.certify(photos, attacks.certified_table(out), sigma, draws, images=images)


def energies_job(photos: Photographs, out: Path, left: Left) -> None:
    """Purifiers, surrogate and control, and what the energy says of images."""
    if left() > 90:
        purification.energies(photos, purification.energy_table(out))


def purification_job(photos: Photographs, out: Path, left: Left, *defences: str) -> None:
    """Each of the defences against each of the poisons; in a dry run against one."""
    for defence in defences:
        for attack in purification.ATTACKS[: 1 if photos.dry else None]:
            if left() > 15:
                purification.run(photos, purification.table(out), attack, defence)


def board_job(photos: Photographs, out: Path, left: Left, *poisons: str) -> None:
    """The board's cells of these poisons; first what decides, then the rivals."""
    board.run(photos, out, poisons, left)


AIMED = ("bullseye_polytope", "gradient_matching")
# name, value, function: the higher the value, the earlier it runs. Seconds on one H100: estimates
# for a process that has it to itself; eight side by side took five times as long.
JOBS: list[tuple[str, float, Job]] = [
    ("speed", 9, speed_job),
    ("collapse", 10, collapse_job),
    ("collapse, two more seeds", 1, partial(collapse_job, seeds=MORE)),
    # 70 s: nine trainings, 7 s each, and twice 3 s of PGD
    ("poisons: backdoors", 8.9, lambda *job: poisons_job(*job, poisons.backdoors, 0)),
    ("stored features", 8.8, features_job),  # 25 s: three trainings
    ("layers", 8.7, layers_job),  # 25 s: one training, 90 tests on the CPU
    # 45 s: one network trained on noisy steps, two victims
    ("poisons: robust surrogate", 6.2, lambda *job: poisons_job(*job, poisons.hardened_well, 0)),
    # 35 s: three trainings, 10 s for the noise
    # 100 s a poison, a third of it the transplant test; its splits are done on the CPU
    ("board: clean, badnets", 8.6, lambda *job: board_job(*job, "clean", "badnets")),
    ("board: blended", 8.5, lambda *job: board_job(*job, "blended", "wanet", "adaptive_blend")),
    ("poisons: narcissus", 6, lambda *job: poisons_job(*job, poisons.narcissus, 0)),
    # 90 s: four trainings, then 3 to 5 s for each of eight victims of both attacks
    ("poisons: transfer", 5.5, lambda *job: poisons_job(*job, poisons.transfer, *AIMED)),
    # 180 s: sixteen trainings, and 2 (Bullseye) to 7 s for each of eight victims
    ("poisons: from scratch", 5, lambda *job: poisons_job(*job, poisons.scratch, *AIMED[::-1])),
    # 110 s and 60 s: as above, without the clean networks
    ("poisons: backdoors, more", 3, lambda *job: poisons_job(*job, poisons.backdoors, *MORE)),
    ("poisons: narcissus, more", 2.9, lambda *job: poisons_job(*job, poisons.narcissus, *MORE)),
    ("layers, ResNet-18", 2.8, partial(layers_job, archs=("resnet18",))),  # 45 s
    ("layers, two more seeds", 2, partial(layers_job, seeds=MORE)),  # 35 s
    # What shares networks belongs into one process: attacks; smoothed and certified; purification.
    # 100 s: trainings 7, 20 and 7, then 10 (plain) to 25 s of attacks each
    ("attacks", 7, lambda *job: attacks_job(*job, *attacks.NETWORKS[:-1])),
    ("attacks: smoothed", 6.6, lambda *job: attacks_job(*job, "smoothed")),  # 45 s, 8 of training
    ("certified", 6.8, lambda *job: certified_job(*job, 1000)),  # 25 s, 16 of them of training
    ("certified: 10,000", 4, lambda *job: certified_job(*job, 10_000)),  # 70 s
    # 85 s: 40 for the energy, 25 for the diffusion, 12 for two networks, 8 for two long walks
    ("purification: energies", 4.6, energies_job),
    # 110 s: 30 trainings, 2.5 s each; 30 to wash
    ("purification", 4.5, lambda *job: purification_job(*job, *purification.FIRST)),
    # 120 s: 36 trainings; 30 to wash
    ("purification: more", 2.6, lambda *job: purification_job(*job, *purification.THEN)),
    # 130 s: 42 trainings, 18 to wash
    ("purification: last", 2.5, lambda *job: purification_job(*job, *purification.LAST)),
]
# what the jobs write, and what tells its rows apart
TABLES = {
    "photographs_collapse": collapse.KEY,
    "photographs_speed": speed.KEY,
    "photographs_layers": layers.KEY,
    "photographs_poisons": poisons.KEY,
    "photographs_attacks": attacks.KEY,
    "photographs_certified": attacks.CERTIFIED,
    "photographs_purification": purification.KEY,
    "photographs_energy": purification.ENERGY,
}
FILES = (features.NAME,)  # what else they write


def run(
    archive: Path,
    out: Path,
    minutes: float = 10,
    images: int | None = None,
    only: Collection[str] | None = None,
) -> list[str]:
    """Run the jobs within the time; the names of those that failed, whose errors lie in the log.

    ``images`` is how many to train on, for a dry run; a quarter as many test. ``only`` names the
    jobs (None: all), so that several processes may share one GPU and one folder.
    """
    end, folder = time.monotonic() + 60 * minutes, out.with_name(out.name.split(".")[0])
    folder.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    photos, failed = _unpacked(archive, images, folder), []
    jobs = [job for job in JOBS if only is None or job[0] in only]
    for name, _, job in sorted(jobs, key=lambda entry: -entry[1]):
        left = end - time.monotonic()
        print(f"{name}: {left:.0f} s are left", flush=True)
        try:
            if left > 0:
                job(photos, folder, lambda: end - time.monotonic())
        except Exception:  # a job that fails must not take the others along
            failed.append(name)
            with (folder / "errors.txt").open("a") as log:
                log.write(f"{name}\n{traceback.format_exc()}\n")
            traceback.print_exc()
        with places.whole(out) as draft, tarfile.open(draft, "w:gz") as file:
            for path in sorted(folder.iterdir()):  # drafts of a process beside this one come and go
                if path.suffix in (".csv", ".npz", ".txt"):
                    file.add(path, arcname=f"results/{path.name}")
    if out.stat().st_size > LIMIT:
        raise ValueError(f"{out}: {out.stat().st_size} bytes; at most {LIMIT:.0f} are allowed")
    return failed


def _unpacked(archive: Path, images: int | None, folder: Path) -> Photographs:
    """The photographs on the device; an archive is unpacked into ``folder``, and stays there."""
    sizes = {"n_train": images, "n_test": images and images // 4}
    place = archive if archive.is_dir() else folder / "images"
    with FileLock(folder / "images.lock"):  # a process beside this one waits, and then reads
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=folder) as draft, tarfile.open(archive) as file:
                file.extractall(draft, filter="data")
                os.replace(draft, place)
                Path(draft).mkdir()  # for its end
    root = next(p.parent for p in sorted(place.rglob("train")))
    return photographs(f"folder:{root}", device.pick(), **sizes)


def take(archive: Path, results: Path = RESULTS) -> None:
    """Put the rows of a returned archive among those of ``results``."""
    with tempfile.TemporaryDirectory() as place, tarfile.open(archive) as file:
        file.extractall(place, filter="data")
        for name, key in TABLES.items():
            rows = Table(name, key, Path(place) / "results").rows.values()
            if rows:
                Table(name, key, results).append(*rows)
                print(f"{name}: {len(rows)} rows")
        if board.take(Path(place) / "results", results):
            print("scoreboard: rows")
        for found in (Path(place) / "results" / name for name in FILES):
            if found.exists():
                with places.whole(results / found.name) as draft:
                    shutil.copyfile(found, draft)
                print(f"{found.name}: {found.stat().st_size} bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--images", type=int, help="a dry run on so many")
    parser.add_argument("--take", action="store_true", help="read ARCHIVE's rows into data/results")
    parser.add_argument("--only", nargs="+", choices=[name for name, *_ in JOBS])
    options = parser.parse_args()
    if options.take:
        take(options.archive)
        return 0
    out = options.out or Path("build/gpu.tar.gz")
    failed = run(options.archive, out, options.minutes, options.images, options.only)
    print(f"wrote {out}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
