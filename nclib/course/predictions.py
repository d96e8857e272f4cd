"""Predict, run, read: a guess is noted before the experiment and compared after it, not graded."""

from __future__ import annotations

from IPython.display import display

from nclib.course import exercises, ranges, session
from nclib.course.checks import blank
from nclib.course.exercises import Prediction
from nclib.course.shown import Shown

Said = float | list[float] | str

_guesses: dict[str, Said] = {}


def predict(name: str, guess: object) -> None:
    """Note ``guess`` for prediction ``name``: a number, a sketch (numbers in a row) or a word.

    None or ``...`` is no guess yet, which is said and fails nothing. Raises ``ValueError`` for a
    name that no lesson declares and for a guess that is none of the three.
    """
    asked = exercises.prediction_of(name)
    _guesses.pop(name, None)
    if blank(guess):
        print(f"{name}: no guess yet; write yours in place of ... and run the cell again")
        return
    _guesses[name] = _read("guess", guess)
    print(f"{name}: noted, {_told(_guesses[name], asked)}")


def reveal(name: str, measured: object) -> None:
    """Show the guess, what came out, and what speaks against the usual wrong guess.

    ``measured`` is a number, several of them (seeds), a row where a sketch was asked for, or a
    word. Where a test runs the lesson a prediction that nobody made raises ``DoesNotHold``, and so
    does, on the default data set, a result that is not what the lesson's text says.
    """
    asked, found = exercises.prediction_of(name), _read("measured", measured)
    if session.strict() and name not in _guesses:
        raise session.DoesNotHold(f"{name}: it is revealed, but nothing was predicted")
    guess = _guesses.get(name)
    came, result = _told(found, asked), found
    if isinstance(found, list) and isinstance(asked.reading, ranges.Range):
        came, result = ranges.spread(found, asked.unit), ranges.mean(found)
    rows: list[tuple[str, ...]] = [
        ("you guessed", "nothing yet" if guess is None else _told(guess, asked))
    ]
    rows.append(("it came out", came))
    holds = _matches(result, asked.reading)
    wrong = {k: why for k, why in asked.usual.items() if holds or not _matches(result, k)}
    caught = {key: why for key, why in wrong.items() if _matches(guess, key)}
    for key, why in (caught or wrong).items():
        rows.append((f"why not {in_words(key, asked)}", why))
    if not holds:
        rows.append(("the text says", f"{in_words(asked.reading, asked)}; not so here"))
    session.elsewhere()
    display(Shown(asked.question, ("", ""), rows, None if holds else False))
    text = f"the text says {in_words(asked.reading, asked)}, and it came out {came}"
    session.insist(holds, f"{name}: {text}")


def _read(name: str, said: object) -> Said:
    """A word as it is, one number, or a row of them."""
    if isinstance(said, str):
        return said.strip()
    row = ranges.numbers(name, said)
    return row if len(row) > 1 else row[0]


def _told(said: Said, asked: Prediction) -> str:
    if isinstance(said, list):
        return f"{', '.join(map(ranges.short, said))} ({shape(said)})"
    return said if isinstance(said, str) else ranges.short(said) + _unit(asked)


def _unit(asked: Prediction) -> str:
    return f" {asked.unit}" if asked.unit else ""


def in_words(key: object, asked: Prediction) -> str:
    """How a guess that is declared is named: "below 2 times", "falls", "about 5 times"."""
    about = isinstance(key, ranges.Range) and key in asked.usual and key.near
    said = f"about {ranges.short(about[0])}" if about else str(key)
    return said if isinstance(key, str) else said + _unit(asked)


def _matches(said: object, key: ranges.Range | str) -> bool:
    """Whether a guess or a result is of the declared kind."""
    if isinstance(key, str):
        word = shape(said) if isinstance(said, list) else said
        return isinstance(word, str) and word.casefold() == key.casefold()
    return isinstance(said, float) and said in key


def shape(sketch: list[float]) -> str:
    """What a row of numbers does: "rises", "falls", "flat", "peaks", "dips" or "wavers"."""
    low, high = min(sketch), max(sketch)
    if high - low <= 0.05 * max(abs(low), abs(high)):
        return "flat"
    slack = 0.05 * (high - low)  # nobody draws a straight line
    steps = [b - a for a, b in zip(sketch, sketch[1:], strict=False)]
    if all(step >= -slack for step in steps):
        return "rises"
    if all(step <= slack for step in steps):
        return "falls"
    top, bottom = sketch.index(high), sketch.index(low)
    for word, turn, sign in (("peaks", top, 1), ("dips", bottom, -1)):
        to, fro = (s * sign for s in steps[:turn]), (s * sign for s in steps[turn:])
        if all(s >= -slack for s in to) and all(s <= slack for s in fro):
            return word
    return "wavers"
