"""Draw the hook of lesson 16: four investigators on thirty sealed cases, from the stored rows."""

from pathlib import Path

from nclib.course import results
from nclib.plots import scoreboard, style

WHO = ("trusting", "suspicious", "transplant", "geometry")

style.apply()
table = results("capstone")
clean = table.state == "clean"
scores = {
    who: tuple(table[(table.investigator == who) & part].score.tolist() for part in (clean, ~clean))
    for who in WHO
}
axes = scoreboard.investigators(scores)
axes.set_xticks(range(len(WHO)), ["accuses nobody", "always accuses", "lesson 05", "?"])
axes.figure.savefig(Path(__file__).with_suffix(".png"), dpi=80)
