"""Four investigators on thirty sealed cases: data/results/capstone.csv.

``make results-capstone`` hands in the finding of each baseline of lesson 16 (trusting,
suspicious, transplant as it comes) and of its solution, which looks at geometry alone, for cases
100 to 129 of the road signs. A row has the points, the commitment, and what geometry said. The two
cuts of ``lesson16`` were set on the clean ones of cases 0 to 22. Finished rows are kept; one case
goes to all four, and takes about 20 seconds of CPU time, a dozen of them for the transplant test.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from experiments.table import Table, facts
from nclib.course import capstone
from nclib.course.exercises import lesson16

KEY = ("investigator", "dataset", "case")
CASES = range(100, 130)


INVESTIGATORS: dict[str, Callable[[capstone.Case], capstone.Finding]] = {
    "trusting": capstone.trusting,
    "suspicious": capstone.suspicious,
    "geometry": lesson16.investigate,
    "transplant": capstone.transplanting,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="signs")
    parser.add_argument("--cases", nargs="+", type=int, default=list(CASES))
    parser.add_argument("--investigators", nargs="+", default=list(INVESTIGATORS))
    options = parser.parse_args()
    table = Table("capstone", KEY)
    for number in options.cases:
        for name, investigate in INVESTIGATORS.items():
            key = {"investigator": name, "dataset": options.dataset, "case": number}
            if table.has(**key) or name not in options.investigators:
                continue
            one, start = capstone.sealed(number, options.dataset), time.process_time()
            finding = investigate(one.case)
            spread, loose = lesson16.shape_of(one.case)
            row = one.hand_in(finding) | {"commitment": one.case.commitment} | key
            row |= {"named": " ".join(map(str, finding.classes)), "nc1": loose}
            row |= {"spread": float(spread.max()), "spread_class": int(spread.argmax())}
            row["cpu_seconds"] = round(time.process_time() - start, 1)
            table.append(row | facts(one.case.train.device))
            print(number, name, row["state"], round(row["score"], 2), flush=True)


if __name__ == "__main__":
    main()
