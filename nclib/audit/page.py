"""The page: one offline file that reads without a script, where every name is text."""

from __future__ import annotations

import base64
import csv
import io
import platform
import re
import shlex
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import resize, to_pil_image

import nclib
from nclib.audit.progress import MOST
from nclib.audit.result import Result, Suspect, is_crowd
from nclib.audit.words import files, found, odds, sentence
from nclib.correction import Finding
from nclib.detection.transplant import strangers
from nclib.places import whole
from nclib.plots import CLEAN, POISON, label, panels

WIDEST = 96  # pixels of a picture on the page
WORST = 30
TURNING = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn")


def save(audit: Result, out: Path) -> Path:
    """Write report.html and suspects.csv into ``out``; refuses a folder inside the set."""
    root = audit.source.root
    if root is not None and root.is_dir() and out.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"out: {out} lies inside {root}, which stays as it is; name another place")
    with whole(out / "suspects.csv") as draft, draft.open("w", newline="", **_text()) as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "suggested label", "reason", "score"])
        rows.writerows(_row(audit, suspect) for suspect in audit.suspects)
    page = _template("page.html").render(title=audit.source.name, body=body(audit))
    with whole(out / "report.html") as draft:
        draft.write_text(page, **_text())
    return out / "report.html"


def _text() -> dict[str, Any]:
    return {"encoding": "utf-8", "errors": "backslashreplace"}  # file names need not be UTF-8


def _row(audit: Result, suspect: Suspect) -> tuple[str, str, str, str, float]:
    found = audit.source
    name = found.classes[found.labels[suspect.at]]
    return (found.names[suspect.at], name, suspect.suggested, suspect.reason, suspect.score)


def body(audit: Result) -> str:
    """The page without its frame, for a notebook."""
    rows = [(*_row(audit, s), _opened(audit, s.at)) for s in audit.doubtful(WORST)]
    return _template("body.html").render(
        audit=audit,
        sentence=sentence(audit),
        files=files(audit),
        minutes=max(1, round(audit.seconds.get("labels", 0) * MOST * 3 / 60)),
        triggers=[_trigger(audit, f) for f in audit.accused],
        honest=[
            f for f in (audit.verdict.findings if audit.verdict else ()) if f.call != "backdoor"
        ],
        rows=rows,
        count=len(audit.suspects),
        figure=_figure(audit),
        found=found(audit),
        odds=odds(audit),
        tested=any(audit.source.is_test),
        notes=[*(audit.reading.notes if audit.reading else ()), *audit.notes],
        classes=_classes(audit),
        facts=_facts(audit),
        command=command(audit),
        percent=lambda share: f"{share:.0%}" if share == share else "-",
    )


def _template(name: str) -> Any:
    loader = PackageLoader("nclib.audit", "templates")
    options: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True}
    found = Environment(autoescape=True, loader=loader, finalize=_visible, **options)
    return found.get_template(name)


def _visible(value: Any) -> Any:
    """Text in which signs that turn the direction of reading are written out, as ``\\u202e``."""
    if type(value) is not str:
        return value
    shown = TURNING.sub(lambda sign: f"\\u{ord(sign[0]):04x}", value)
    return shown.encode("utf-8", "backslashreplace").decode()


def _trigger(audit: Result, finding: Finding) -> dict[str, Any]:
    """The recovered trigger, and three images of other classes without it and with it."""
    data = audit.data
    draw = torch.Generator().manual_seed(0)
    hosts = strangers(data.labels, finding.label, data.num_classes, draw)[:3]
    scale = finding.added.abs().max().clamp_min(1e-6)
    images = data.images[hosts].cpu()
    return {
        "name": data.classes[finding.label],
        "count": int(finding.group.sum()),
        "finding": finding,
        "source": None if finding.source is None else data.classes[finding.source],
        "picture": _picture(0.5 + finding.added / (2 * scale)),
        "hosts": [
            (data.classes[int(data.labels[i])], _picture(x), _picture(x + finding.added))
            for i, x in zip(hosts.tolist(), images, strict=True)
        ],
        "crowd": is_crowd(finding),
        "on_model": audit.on_model.get(finding.label),
    }


def _opened(audit: Result, at: int) -> str:
    try:
        return _picture(audit.source.picture(at).float() / 255)
    except (ValueError, OSError):
        return ""


def _picture(image: Tensor) -> str:
    """An image ``[C, H, W]`` of [0, 1] as a data URI; never wider than ``WIDEST``."""
    tall = max(image.shape[1:])
    if tall > WIDEST:
        sides = [max(1, round(s * WIDEST / tall)) for s in image.shape[1:]]
        image = resize(image, sides, antialias=True)
    if len(image) not in (1, 3):
        image = image[:3] if len(image) > 3 else image[:1]
    return _uri(to_pil_image(image.clamp(0, 1)), "PNG" if tall <= 32 else "WEBP")


def _uri(picture: Image.Image, kind: str) -> str:
    sink = io.BytesIO()
    picture.save(sink, kind, quality=85)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(sink.getvalue()).decode()}"


def _figure(audit: Result) -> str:
    """NC1 by layer, and the class means' distances; classes by number, for fonts lack names."""
    if audit.geometry is None:
        return ""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    shape = audit.geometry
    figure, (left, right) = panels(2, width=4.6, height=3.0)
    left.plot(list(shape.nc1), list(shape.nc1.values()), marker="o", color=CLEAN)
    left.set_yscale("log")
    left.tick_params(axis="x", rotation=30)
    label(left, "Spread within classes, by layer", "layer, from shallow to deep", "NC1 (no unit)")
    far = torch.tensor([f.label for f in audit.accused], dtype=torch.int64)
    right.plot(shape.norms, ".", color=CLEAN)
    right.plot(far, shape.norms[far], "o", color=POISON, label="accused")
    right.set_ylim(bottom=0)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    label(right, "Class means from the centre", "class number", "distance / median distance")
    if len(far):
        right.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(drawn.getvalue()).decode()


def _classes(audit: Result) -> list[tuple[int | str, str, int, int]]:
    """Number, name, images and suspects of each class, the most suspicious first."""
    found = audit.source
    sizes = torch.tensor(found.labels).bincount(minlength=len(found.classes)).tolist()
    bad = torch.zeros(len(found.classes), dtype=torch.int64)
    for suspect in audit.suspects:
        bad[found.labels[suspect.at]] += 1
    judged = audit.data.classes if audit.reading and audit.reading.train else ()
    number = {name: i for i, name in enumerate(judged)}
    rows = [
        (number.get(name, "-"), name, size, int(n))
        for name, size, n in zip(found.classes, sizes, bad, strict=True)
    ]
    return sorted(rows, key=lambda row: -row[3] / max(1, row[2]))


def _facts(audit: Result) -> dict[str, str]:
    found, read = audit.source, audit.reading
    tests = sum(found.is_test)
    facts = {
        "images": f"{len(found):,}" + (f", {tests:,} of them in the test part" if tests else ""),
        "classes": f"{len(found.classes):,}",
    }
    if read is not None and read.train is not None:
        channels, height, width = read.train.shape
        colour = "grey" if channels == 1 else "colour" if channels == 3 else f"{channels} channels"
        facts["trained on"] = f"{len(read.train):,} images of {height} x {width}, {colour}"
    if audit.verdict is not None:
        extra = audit.planted.trainings if audit.planted else 0
        facts["trainings"] = str(audit.verdict.trainings + 2 + extra)
    facts["seconds"] = f"{sum(audit.seconds.values()):,.0f}"
    facts["date"] = date.today().isoformat()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    facts["versions"] = f"nclib {nclib.__version__}, Python {platform.python_version()}, {packages}"
    return facts


def command(audit: Result) -> str:
    """The line that repeats the audit."""
    usual = {"size": None, "limit": None, "controls": 0, "epochs": 12, "seed": 0, "build": "cnn"}
    changed = {k: v for k, v in audit.options.items() if v != usual.get(k) and v}
    root, own = audit.source.root, {k: v for k, v in changed.items() if v is True or callable(v)}
    if own or root is None and not audit.source.name.startswith("hf:"):
        told = {k: repr(v) for k, v in changed.items()} | {k: k for k in own}
        return f"audit.run({', '.join(['data', *(f'{k}={v}' for k, v in told.items())])})"
    flags = [word for k, v in changed.items() for word in (f"--{k}", str(v))]
    return shlex.join(["python", "-m", "nclib", "audit", str(root or audit.source.name), *flags])
