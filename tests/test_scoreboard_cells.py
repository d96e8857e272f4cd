"""What a cell measures, what the report says about the rows, and a score of one's own."""

import csv
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from nclib import data, detection, models, poisons
from nclib.plots import scoreboard as draw
from nclib.scoreboard import (
    COLUMNS,
    Cell,
    Store,
    cases,
    grids,
    methods,
    report,
    run,
    submission,
    summary,
)
from nclib.scoreboard.attacks import OTHERS, SINGLE, poisoned
from nclib.scoreboard.cases import prepare
from nclib.scoreboard.cells import evaluate
from nclib.scoreboard.submission import together


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A board whose trainings take a moment: 300 digits, 4 epochs, a run cache of its own."""
    patch = pytest.MonkeyPatch()
    patch.setitem(grids.SIZES, "digits", grids.Size(300, 200, 4))
    patch.setenv("NCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
    prepare.cache_clear()
    yield patch
    patch.undo()
    prepare.cache_clear()


def test_a_row_has_the_columns_of_the_board_and_honest_numbers(small):
    row = evaluate(Cell("digits", "badnets", 0.05, 1, "oracle"))
    assert set(row) <= set(COLUMNS)
    assert row["kind"] == "control" and row["poison_count"] == 15
    assert row["tpr"] == 1 and row["fpr"] == 0 and row["needs"] == "the truth"
    assert row["asr"] < 0.3 and 0.4 < row["accuracy"] <= 1  # four epochs, but no poison
    left = evaluate(Cell("digits", "badnets", 0.05, 1, "robust_distance"))
    assert left["auroc"] > 0.8 and left["tpr"] > 0.4 and left["fpr"] < 0.05
    more = evaluate(Cell("digits", "badnets", 0.05, 1, "robust_distance_x1.5"))
    assert more["auroc"] == left["auroc"] and more["tpr"] >= left["tpr"]
    removed = [row["tpr"] * 15 + row["fpr"] * 285 for row in (left, more)]
    assert removed == pytest.approx([15, 22.5], abs=0.6)  # the true count, and half as many again
    flips = evaluate(Cell("digits", "flip", 0.2, 1, "random"))
    assert "asr" not in flips and 0.3 < flips["auroc"] < 0.7
    clean = evaluate(Cell("digits", "clean", 0.0, 1, "spectral"))
    assert "auroc" not in clean and clean["fpr"] == pytest.approx(0.05, abs=0.01)
    assert "tpr" not in clean


@pytest.mark.parametrize("method", [*grids.REPAIRS, *grids.DEFENCES])
def test_every_method_ends_in_a_model_that_names_digits(small, method):
    row = evaluate(Cell("digits", "badnets", 0.05, 1, method))
    assert 0.15 < row["accuracy"] <= 1 and 0 <= row["asr"] <= 1
    assert row["kind"] == grids.KINDS[method]


@pytest.mark.parametrize("method", ["strip", "scale_up", "ibd_psc", "abl_isolation", "asset"])
def test_every_rival_ranks_the_samples(small, method):
    row = evaluate(Cell("digits", "blended", 0.1, 1, method))
    assert 0 <= row["auroc"] <= 1 and row["kind"] == "detector" and "count" in row["needs"]


def test_the_verdict_of_the_transplant_is_a_column(small):
    row = evaluate(Cell("digits", "flip", 0.2, 1, "transplant"))
    assert row["call"] in ("clean", "wrong labels", "backdoor", "cannot tell")
    assert row["right"] in (0, 1) and row["accused"] >= 0 and row["needs"] == "nothing"


def test_nobody_is_measured_on_the_images_that_are_given_out(small):
    case = prepare("digits", "badnets", 0.05, 1)
    assert len(case.spare) == 15 and len(case.test) == 185
    apart = torch.cdist(case.spare.images.flatten(1), case.test.images.flatten(1))
    assert (apart > 0).all() and not case.spare.images.isnan().any()
    with_covers = prepare("digits", "adaptive_blend", 0.1, 1).train
    assert with_covers.harmful.sum() == 30 < with_covers.is_poisoned.sum()


def test_many_cells_share_one_training(small, monkeypatch):
    calls, fit = [], cases.training.fit

    def counted(model, train, **options):
        made = fit(model, train, **options)
        calls.append(made.cached)
        return made

    monkeypatch.setattr(cases, "training", SimpleNamespace(fit=counted))
    for method in ("none", "fine_tune", "etf_head"):
        prepare.cache_clear()  # as if each cell ran in a process of its own
        evaluate(Cell("digits", "sig", 0.05, 3, method))
    assert calls == [False, False] + [True] * 4  # the victim and the clean control, once each


def test_an_interrupted_training_makes_no_row(small, monkeypatch):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(cases.training._Epoch, "__call__", stopped)
    prepare.cache_clear()
    with pytest.raises(KeyboardInterrupt):
        evaluate(Cell("digits", "flip", 0.2, 9, "none"))


def test_unknown_poison_and_method_are_refused_by_name(small):
    train = prepare("digits", "clean", 0.0, 1).train
    with pytest.raises(ValueError, match="poison: got 'ink'"):
        poisoned(train, "ink", 0.1, 0)
    with pytest.raises(ValueError, match="method: got 'hope'"):
        evaluate(Cell("digits", "clean", 0.0, 1, "hope"))


def test_poison_of_the_board_is_what_the_columns_say(small):
    train = prepare("digits", "clean", 0.0, 1).train
    for poison, rate in (("sig", 0.05), ("wanet", 0.1), ("blended", 0.1)):
        found = poisoned(train, poison, rate, 2)
        assert found.target == 6 and found.rate == pytest.approx(rate)
        assert (found.labels != found.clean_labels)[found.is_poisoned].all()
    marked = prepare("digits", "clean_label", 0.05, 1).train
    assert torch.equal(marked.labels, train.labels) and marked.is_poisoned.sum() == 15
    with pytest.raises(ValueError, match="clean_label with a surrogate"):
        poisoned(train, "clean_label", 0.05, 1)


# of 300 digits, seed 3, rate .2: where the poisons and the wrong labels are (the sum of their
# positions), the sum of the labels, and the mean pixel
STANDS = {
    "adaptive_blend": [18001, 9698, 1651, 0.307622],
    "adaptive_patch": [26257, 9698, 1651, 0.310578],
    "all_to_all": [9806, 9806, 1337, 0.311725],
    "badnets": [9698, 9698, 1651, 0.311914],
    "blended": [9698, 9698, 1651, 0.309108],
    "clean": [0, 0, 1347, 0.304010],
    "each_class": [8634, 8634, 1337, 0.310287],
    "flip": [9806, 9806, 1324, 0.304010],
    "flip_badnets": [13238, 13238, 1675, 0.311914],
    "input_aware": [18001, 9698, 1651, 0.319149],
    "roaming": [9364, 9364, 1637, 0.309821],
    "roaming_three": [9557, 9557, 1830, 0.309710],
    "roaming_one": [3864, 3864, 1617, 0.305937],
    "one_source": [3864, 3864, 1617, 0.307334],
    "sig": [9698, 9698, 1651, 0.306715],
    "two": [24045, 24045, 1426, 0.326077],
    "wanet": [9698, 9698, 1651, 0.302832],
}


@pytest.mark.parametrize("attack", STANDS)
def test_a_key_stands_for_the_same_data_for_good(attack):
    train = data.load("digits", n_train=300, device="cpu")[0]
    rate = 0 if attack == "clean" else 0.2
    one, two = (poisoned(train, attack, rate, 3) for _ in range(2))
    assert torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels)
    wrong = one.labels != one.clean_labels
    place = torch.arange(len(train))  # which samples, not only how many
    found = (place[one.is_poisoned].sum(), place[wrong].sum(), one.labels.sum())
    assert [int(n) for n in found] == STANDS[attack][:-1]
    assert float(one.images.double().mean()) == pytest.approx(STANDS[attack][-1], abs=1e-5)


def test_every_attack_has_its_stand():
    assert set(STANDS) == {*OTHERS, *SINGLE} - {"clean_label", "sticker"}


def test_of_two_attacks_the_first_has_its_samples_and_the_goal():
    train = data.load("digits", n_train=300, device="cpu")[0]
    both, alone = (poisoned(train, attack, 0.1, 3) for attack in ("two", "badnets"))
    mine = alone.is_poisoned
    assert torch.equal(both.images[mine], alone.images[mine]) and both.target == alone.target == 9
    late = both.is_poisoned & ~mine
    blend = poisons.blended(train, 0.2, 3, seed=53)
    assert torch.equal(late, blend.is_poisoned & ~mine) and late.sum() > 40
    assert torch.equal(both.images[late], blend.images[late]) and (both.labels[late] == 3).all()
    assert [part.target for part in both.parts] == [3, 9]
    assert torch.equal(both.triggered(train), alone.triggered(train))


def test_the_vote_of_parts_counts_each_model_once():
    class Says(torch.nn.Module):
        def __init__(self, c):
            super().__init__()
            self.c = c

        def forward(self, x):
            return torch.eye(3)[self.c].expand(len(x), 3)

    votes = methods.Vote([Says(0), Says(2), Says(2)], 3)(torch.zeros(4, 1, 2, 2))
    assert votes.tolist() == [[1.0, 0.0, 2.0]] * 4


def rows_of(values, method="none", **more):
    """Rows of one cell, one per seed."""
    place = {"dataset": "digits", "poison": "badnets", "rate": 0.05, "method": method} | more
    place |= {"needs": "nothing", "fpr": 0.0, "accused": 0, "seconds": 1.0}
    return [place | {"seed": s, "auroc": v, "accuracy": v, "asr": v} for s, v in enumerate(values)]


def test_the_interval_is_students_t():
    values = [0.2, 0.3, 0.35, 0.3, 0.25]
    table = summary.summary(pd.DataFrame(rows_of(values)))
    found = table[table.metric == "asr"].iloc[0]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert found[["mean", "low", "high"]].to_list() == pytest.approx([np.mean(values), low, high])
    assert found.seeds == 5
    single = summary.summary(pd.DataFrame(rows_of([0.4]))).iloc[0]
    assert single["mean"] == 0.4 and np.isnan(single.low)


def test_the_report_writes_page_figure_and_the_marked_part_of_the_readme(tmp_path):
    store = Store(tmp_path / "board.csv")
    for row in rows_of([0.9, 0.8, 1.0]) + rows_of([0.1, 0.1, 0.1], "oracle"):
        store.append(row)
    for row in rows_of([0.95, 0.9, 0.97], poison="clean", rate=0.0):
        store.append({k: v for k, v in row.items() if k not in ("asr", "auroc")})
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"before\n{report.BEGIN}old\n{report.END}\nafter\n")
    written = report.write(store.path, tmp_path)
    figures = {"scoreboard_digits.png", "scoreboard.png"}
    assert {p.name for p in written} == figures | {"README.md", "scoreboard.md"}
    assert all(p.stat().st_size > 0 for p in written)
    page = (tmp_path / "docs/scoreboard.md").read_text()
    assert "| `none` | 0.90 [0.65, 1.00] |" in page and "badnets 5%" in page
    assert page.index("`none`") < page.index("`oracle`")
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("before\n") and readme.endswith("after\n") and "old" not in readme
    assert "docs/figures/scoreboard.png" in readme
    assert "| `oracle` | nothing | 0 of 1 |" in page  # .1 left, and the accuracy is .1, too
    assert "the transplant test, which is told nothing" not in readme  # no such row
    with pytest.raises(ValueError, match="not there"):
        summary.read(tmp_path / "none.csv")


def test_together_counts_the_worse_of_two_sides(small, monkeypatch):
    monkeypatch.setattr(submission, "SEEDS", (0,))
    table = together(detection.whitened_margin, name="ours", progress=False).set_index("method")
    both = ["clean-label 5%", "flip 20%"]
    assert set(both) < set(table.columns) and "spectral" in table.index
    assert table.worse.tolist() == table[both].min(axis=1).tolist()
    assert table.loc["ours", both].tolist() == table.loc["whitened_margin", both].tolist()
    assert table.loc["ours", "flip 20%"] > 0.6
    drawn = draw.both_sides(table.reset_index(), "ours")
    assert drawn.get_xlabel() == "AUROC, flip 20%"
    with pytest.raises(ValueError, match="is a known detector"):
        together(detection.spectral, name="spectral", progress=False)


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (lambda h, y: h, "score: returned"),
        (lambda h, y: torch.full((len(y),), torch.nan), "NaN"),
    ],
)
def test_a_bad_score_is_refused(small, score, word):
    with pytest.raises(ValueError, match=word):
        together(score, progress=False)


def test_the_command_line_runs_a_grid_and_reports_what_failed(small, tmp_path, monkeypatch, capsys):
    from nclib.scoreboard.command import main

    monkeypatch.setitem(grids.GRIDS, "quick", ("digits", [("flip", [0.2])], ("none", "hope"), (1,)))
    out = tmp_path / "board.csv"
    assert main(["run", "quick", "--out", str(out)]) == 1
    told = capsys.readouterr()
    assert "method: got 'hope'" in told.err and "1 of 2 cells" in told.out
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["method"] == "none" and float(row["accuracy"]) > 0.15


def test_cells_and_board_agree_on_the_model(small):
    case = prepare("digits", "clean", 0.0, 1)
    assert type(case.model) is type(models.build("cnn", case.train, seed=0))
    assert list(case.early) == ["conv2", "conv3", "conv4"]
    assert all(len(h) == len(case.train) for h in case.early.values())
    store = Store("unused.csv")
    assert run([], store, progress=False) == {} and not store.path.exists()


def test_the_committed_board_has_every_control_beside_its_methods():
    rows = summary.read()
    for _, part in rows.groupby(["dataset", "poison", "rate", "seed"]):
        assert {"none", "oracle", "transplant"} <= set(part.method)
        assert set(part.method) <= set(grids.KINDS)


def test_an_attack_counts_as_stopped_once_and_only_at_little_cost():
    def cells(method, asr, accuracy):
        place = {"dataset": "digits", "method": method, "needs": "nothing", "seconds": 1.0}
        attacks = [("badnets", 0.05), ("sig", 0.05), ("weak", 0.1)]
        return [
            place | {"poison": p, "rate": r, "seed": 0, "asr": s, "accuracy": a}
            for (p, r), s, a in zip(attacks, asr, accuracy, strict=True)
        ] + [place | {"poison": "clean", "rate": 0, "seed": 0, "accuracy": 1, "fpr": 0.1}]

    rows = pd.DataFrame(
        cells("none", [1, 0.9, 0.2], [1, 1, 1])
        + cells("oracle", [0, 0, 0], [0.995, 0.995, 0.995])
        + cells("transplant", [0.04, 0.6, 0], [0.98, 1, 1])
    ).assign(accused=0)
    table = summary.stopped(rows, "digits")
    assert list(table.index) == ["none", "oracle", "transplant"]
    assert list(table.attacks) == [2, 2, 2]  # the weak one does not count
    assert list(table.stopped) == [0, 2, 0]  # one at the cost of two points, one not at all
    assert table.worst["transplant"] == 0.6 and table.cost["transplant"] == pytest.approx(0.02)
    assert table.clean_removed["oracle"] == 0.1


def test_the_page_names_attacks_that_fail_by_themselves():
    rows = pd.DataFrame(rows_of([0.02] * 5) + rows_of([0.9] * 5, poison="sig"))
    text = report.document(rows, summary.summary(rows))
    assert "the success of badnets 5% is below .1: those columns" in text
    assert "is below .1" not in report.document(rows[5:], summary.summary(rows[5:]))
