"""Nothing points to a lesson by a number that is another lesson's now, or nobody's."""

import contextlib
import importlib
import json
import re
from pathlib import Path

import pytest

from nclib.course.exercises import EXERCISES, PREDICTIONS

ROOT = Path(__file__).resolve().parents[1]
LESSONS = {path.name[:2]: path for path in sorted(ROOT.glob("notebooks/[0-9][0-9]_*.ipynb"))}
# Words that belong to one lesson alone. A sentence that names another lesson beside them, and no
# word of its own, has most likely kept an old number.
TOPICS = {
    "00": r"device|set-?up|MPS|stratif",
    "01": r"collaps|simplex|NC\d|class means?",
    "02": r"flip|BadNets|blended|backdoor|trigger|poison",
    "03": r"clean-label|harden|collision|bullseye|gradient matching",
    "04": r"layer by layer|whitened|robust distance|AUROC|detector|score|baseline",
    "05": r"correct|consensus|relabel|repair|transplant|remov",
    "06": r"FGSM|PGD|Carlini|attack|margin",
    "07": r"explanation|saliency|Grad-CAM|SHAP|look at",
    "08": r"monitor|MMD|two-sample|layer test|arriv",
    "09": r"adversarial training|robust network|worst case",
    "10": r"masking|margin|distillation|temperature",
    "11": r"squeez",
    "12": r"smoothing|certif|radius",
    "13": r"purif|diffusion|energy",
    "14": r"few-shot|few labels|self-supervised|zero-shot",
    "15": r"audit",
    "16": r"capstone|blind|case|board|protocol",
}


WHERE = re.compile(r"(?:notebooks|exercises)/(\d\d)_(\w+)\.ipynb")


def texts() -> dict[str, str]:
    """Every text that a reader of the course may meet: markdown, cells, the package's code."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "data").glob("*.md")]
    paths += [
        p for folder in ("nclib", "experiments", "tools") for p in ROOT.glob(f"{folder}/**/*.py")
    ]
    found = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in paths}
    for path in LESSONS.values():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found[f"notebooks/{path.name}"] = "\n\n".join("".join(cell["source"]) for cell in cells)
    return found


TEXTS = texts()


def stale(text: str) -> list[str]:
    """Sentences that name one lesson by number and speak of another."""
    prose = re.sub(r"(?ms)^```.*?^```|\]\([^)]*\)|^\|.*?$|data:image\S*", "", text)
    found = []
    for sentence in re.split(r"(?<=[.!?:;])\s|\n\s*\n|\n(?=[-*#])", prose):
        named = re.findall(r"[Ll]essons? (\d\d)\b", sentence)
        if len(named) != 1 or re.search(r"\d\d (?:to|and) \d\d", sentence):
            continue
        said = {n for n, words in TOPICS.items() if re.search(words, sentence, re.I)}
        if named[0] not in LESSONS and named[0] not in said:
            found.append(f"there is no lesson {named[0]}: {sentence.strip()[:160]!r}")
        elif said and named[0] not in said:
            found.append(f"{sentence.strip()[:160]!r} speaks of {sorted(said)}")
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_sentence_says_of_a_lesson_fits_its_number(name):
    hint = "a wrong number, or a word that TOPICS of this test lacks"
    assert stale(TEXTS[name]) == [], hint


@pytest.mark.parametrize(
    ("sentence", "good"),
    [
        ("Lesson 07 explains the attack (PGD).", False),
        ("Lesson 06 explains the attack (PGD).", True),
        ("Adversarial training (lesson 08) costs accuracy.", False),
        ("Adversarial training (lesson 09) costs accuracy.", True),
        ("Its protocol is that of lesson 13, the capstone.", False),
        ("Lesson 06 steals what lesson 12 certifies, by squeezing.", True),  # two: no judgement
        ("Saliency maps wait for lesson 07.", True),  # planned, and it is about them
        ("See lesson 77.", False),
        ("See lesson 05.", True),
    ],
)
def test_a_sentence_that_kept_an_old_number_is_found(sentence, good):
    assert (stale(sentence) == []) is good


@pytest.mark.parametrize("name", TEXTS)
def test_links_to_notebooks_lead_somewhere_and_say_where(name):
    for found in WHERE.finditer(TEXTS[name]):
        if found[0] != "notebooks/NN_topic.ipynb":
            assert (ROOT / found[0]).exists(), found[0]
    for said, there in re.findall(
        r"\[[^\]]*?[Ll]esson (\d\d)[^\]]*\]\(\S*?/(\d\d)_\w+", TEXTS[name]
    ):
        assert said == there, f"a link says lesson {said} and leads to {there}"


@pytest.mark.parametrize("name", TEXTS)
def test_named_exercises_and_predictions_exist(name):
    for number in LESSONS:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"nclib.course.exercises.lesson{number}")
    words = set(re.findall(r"[\"`](\d\d\.[a-z]\w+)[\"`]", TEXTS[name]))
    assert words <= EXERCISES.keys() | PREDICTIONS.keys()


def test_an_exercise_belongs_to_a_lesson_that_has_it():
    """Nothing is declared for a lesson that is not there, or that does not ask it."""
    for name in [*EXERCISES, *PREDICTIONS]:
        if name[:2] in LESSONS:
            text = TEXTS[f"notebooks/{LESSONS[name[:2]].name}"]
            assert f'"{name}"' in text, name
    files = ROOT.glob("nclib/course/exercises/lesson*.py")
    assert {path.stem.removeprefix("lesson") for path in files} <= set(LESSONS)
