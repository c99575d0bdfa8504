import json
import math
import re

import pytest

from pyg_lth import PruneConfig, Report, TrainConfig
from pyg_lth.evaluation.degree_groups import Groups, GroupSizes
from pyg_lth.evaluation.significance import Difference
from pyg_lth.results.report import Popularity, RoundResult
from pyg_lth.results.text import COLUMNS, caption, conclusion, table_rows, to_markdown


def metrics(recall):
    return {"precision@20": recall / 2, "recall@20": recall, "ndcg@20": recall / 4}


def difference(recall, dense, low=-0.1, high=0.2, p_value=0.01):
    return Difference(
        relative=recall / dense - 1 if dense else None, low=low, high=high, p_value=p_value
    )


def result(round, remaining, recall, best_epoch=10, dense=0.4, **more):
    return RoundResult(
        round=round,
        density=remaining / 100_000,
        remaining=remaining,
        epochs=20,
        best_epoch=best_epoch,
        seconds=12.34,
        cost_seconds=24.68,
        valid=metrics(recall + 0.1),
        test=metrics(recall),
        difference=difference(recall, dense) if round else None,
        epochs_to_dense=5 if round else None,
        **more,
    )


GROUPS = Groups(
    users=GroupSizes(nodes=[1], interactions=[2]), items=GroupSizes(nodes=[1], interactions=[2])
)


def build(*results, config=None, popularity=0.1):
    config = config or PruneConfig(rounds=3)
    return Report.of_seed(
        config.model_dump(),
        GROUPS,
        Popularity(valid=metrics(0.2), test=metrics(popularity)),
        list(results),
    )


@pytest.fixture
def report():
    return build(
        result(0, 100_000, 0.4),
        result(1, 50_000, 0.5),
        result(2, 25_000, 0.4, best_epoch=15),
        result(3, 12_500, 0.3),
    )


def test_every_ticket_is_judged_against_the_dense_round(report):
    assert [(t.round, t.wins, t.strict) for t in report.rounds] == [
        (1, True, True),
        (2, True, False),
        (3, False, False),
    ]


def test_the_sparsest_winner_is_the_one_of_lowest_density(report):
    assert report.sparsest_winner.model_dump() == {"round": 2, "density": 0.25}
    assert "round 2, which keeps 25.00%" in conclusion(report)


def test_the_tolerance_of_the_settings_counts():
    config = PruneConfig(rounds=1, tolerance=0.3)
    report = build(result(0, 100_000, 0.4), result(1, 50_000, 0.3), config=config)
    assert report.sparsest_winner.round == 1
    assert "tolerance (0.3)" in caption(report)


def test_without_a_winner_the_report_says_null():
    report = build(result(0, 100_000, 0.4), result(1, 50_000, 0.5), popularity=0.6)
    assert report.sparsest_winner is None
    assert json.loads(report.to_json())["sparsest_winner"] is None
    assert conclusion(report).startswith("No ticket wins")


def test_an_unfinished_run_says_how_far_it_is(report):
    assert "so far" not in conclusion(report)
    unfinished = build(result(0, 100_000, 0.4), result(1, 50_000, 0.5))
    assert "(1 of 3 rounds so far)" in conclusion(unfinished)


def test_a_dense_training_has_no_tickets_to_judge():
    report = build(result(0, 100_000, 0.4), config=TrainConfig())
    assert "no tickets" in conclusion(report)
    assert "ticket" not in caption(report)
    assert len(table_rows(report)) == 2


def test_json_round_trips(report):
    assert Report.model_validate_json(report.to_json()) == report
    assert json.loads(report.to_json())["schema"] == 1
    assert report.to_json().endswith("}\n")


def test_the_table_has_a_row_for_popularity_dense_and_each_ticket(report):
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in table_rows(report)]
    assert rows[0] == {
        **dict.fromkeys(COLUMNS, ""),
        **{"round": "popular", "recall": "0.1000", "vs dense": "-75.0%", "ndcg": "0.0250"},
    }
    assert rows[1] == {
        **dict.fromkeys(COLUMNS, ""),
        **{"round": "dense", "density": "100.00%", "remaining": "100,000", "epochs": "10/20"},
        **{"recall": "0.4000", "ndcg": "0.1000", "seconds": "12.3"},
    }
    assert rows[2] == {
        **{"round": "1", "density": "50.00%", "remaining": "50,000", "epochs": "10/20"},
        **{"recall": "0.5000", "vs dense": "+25.0%", "95% interval": "-10.0%..+20.0%"},
        **{"p": "0.030", "ndcg": "0.1250", "to dense": "5", "seconds": "12.3", "wins": "strict"},
    }
    assert [row["wins"] for row in rows[2:]] == ["strict", "yes", "no"]


def test_p_values_are_adjusted_for_the_number_of_rounds(report):
    assert [ticket.p_adjusted for ticket in report.rounds] == pytest.approx([0.03] * 3)


def test_a_difference_without_an_interval_leaves_its_cell_empty():
    lonely = result(1, 50_000, 0.5).model_copy(
        update={"difference": Difference(relative=None, low=None, high=None, p_value=1.0)}
    )
    report = build(result(0, 100_000, 0.4), lonely)
    assert table_rows(report)[2][COLUMNS.index("95% interval")] == ""
    assert conclusion(report).startswith("Sparsest winning ticket: round 1")


def test_both_readings_are_concluded(report):
    assert report.sparsest_strict_winner.model_dump() == {"round": 1, "density": 0.5}
    text = conclusion(report)
    assert "round 2, which keeps 25.00%" in text
    assert "In the strict reading: round 1, which keeps 50.00%" in text
    assert "+25.0% against dense (95% interval -10.0% to +20.0%)" in text


def of_two_seeds(p_value=0.01, recalls=(0.5, 0.3)):
    config = PruneConfig(rounds=1, seeds=2, tolerance=0.1)
    reports = [
        build(result(0, 100_000, 0.4), result(1, 50_000, recall), config=seed)
        for recall, seed in zip(recalls, (PruneConfig(seed=0), PruneConfig(seed=1)), strict=True)
    ]
    differences = [None, difference(sum(recalls) / 2, 0.4, p_value=p_value)]
    return Report.of_seeds(config.model_dump(), reports, differences)


def test_several_seeds_give_means_and_standard_deviations():
    report = of_two_seeds()
    assert report.seeds == [0, 1]
    (ticket,) = report.rounds
    assert ticket.test == pytest.approx(metrics(0.4))
    assert ticket.test_sd["recall@20"] == pytest.approx(math.sqrt(0.02))
    assert table_rows(report)[2][COLUMNS.index("recall")] == "0.4000±0.1414"
    assert "over 2 seeds" in caption(report)
    assert "seeds 0, 1" in to_markdown(report).splitlines()[0]


@pytest.mark.parametrize(("p_value", "wins"), [(0.01, True), (0.2, False)])
def test_with_several_seeds_a_win_must_hold_statistically(p_value, wins):
    (ticket,) = of_two_seeds(p_value).rounds
    assert ticket.wins == wins


def test_a_seed_that_never_reaches_dense_leaves_no_mean_to_tell():
    reports = [
        build(result(0, 100_000, 0.4), ticket)
        for ticket in (
            result(1, 50_000, 0.4),
            result(1, 50_000, 0.4).model_copy(update={"epochs_to_dense": None}),
        )
    ]
    together = Report.of_seeds(PruneConfig(seeds=2).model_dump(), reports, [None, difference(4, 4)])
    assert together.rounds[0].epochs_to_dense is None
    assert reports[0].rounds[0].epochs_to_dense == 5


def test_every_row_has_as_many_cells_as_there_are_columns(report):
    assert {len(row) for row in table_rows(report)} == {len(COLUMNS)}


def test_a_dense_model_that_finds_nothing_has_no_change_to_show():
    report = build(result(0, 100_000, 0.0), result(1, 50_000, 0.2, dense=0.0))
    assert [row[COLUMNS.index("vs dense")] for row in table_rows(report)] == ["", "", ""]


def test_the_markdown_table_holds_the_same_cells(report):
    lines = [line for line in to_markdown(report).splitlines() if line.startswith("|")]
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    assert cells[0] == COLUMNS
    assert all(re.fullmatch(r"-+:", cell) for cell in cells[1])
    assert cells[2:] == table_rows(report)
    assert "model lightgcn" in to_markdown(report).splitlines()[0]


@pytest.mark.parametrize("select_on", ["valid", "test"])
def test_a_table_selected_on_test_says_so(select_on):
    config = PruneConfig(rounds=1, select_on=select_on)
    report = build(result(0, 100_000, 0.4), result(1, 50_000, 0.5), config=config)
    for text in (caption(report), to_markdown(report)):
        assert ("SELECTED ON TEST" in text) == (select_on == "test")


def with_valid(result, recall):
    return result.model_copy(update={"valid": metrics(recall)})


def test_validation_names_the_winner_and_test_is_looked_at_once():
    report = build(
        with_valid(result(0, 100_000, 0.4), 0.5),
        with_valid(result(1, 50_000, 0.5), 0.6),
        with_valid(result(2, 25_000, 0.41), 0.5),
        # By test this one wins too, and is sparser; validation did not say so beforehand.
        with_valid(result(3, 12_500, 0.45), 0.4),
    )
    assert [ticket.wins for ticket in report.rounds] == [True] * 3
    assert report.sparsest_winner.round == 3
    assert report.chosen_on == "valid"
    assert report.winner.round == report.winner_by_validation.round == 2
    # One look needs no adjustment for three rounds.
    assert report.winner_by_validation.p_value == 0.01
    assert report.rounds[1].p_adjusted == pytest.approx(0.03)


def test_a_choice_that_does_not_hold_on_test_is_not_replaced_by_another_look():
    report = build(
        with_valid(result(0, 100_000, 0.4), 0.5),
        with_valid(result(1, 50_000, 0.5), 0.6),
        with_valid(result(2, 25_000, 0.3), 0.6),
    )
    assert (report.winner_by_validation.round, report.winner_by_validation.wins) == (2, False)
    assert report.sparsest_winner.round == 1
    assert report.winner is None and report.strict_winner is None


@pytest.mark.parametrize(("valid", "chosen"), [(0.46, 1), (0.44, None)])
def test_on_validation_the_tolerance_counts_too(valid, chosen):
    report = build(
        with_valid(result(0, 100_000, 0.4), 0.5),
        with_valid(result(1, 50_000, 0.4), valid),
        config=PruneConfig(rounds=1, tolerance=0.1),
    )
    assert (report.winner_by_validation and report.winner_by_validation.round) == chosen


def test_what_is_no_better_than_popularity_on_validation_is_not_chosen():
    report = build(
        with_valid(result(0, 100_000, 0.4), 0.1), with_valid(result(1, 50_000, 0.5), 0.2)
    )
    assert report.winner_by_validation is None
    assert report.sparsest_winner.round == 1


def test_the_strict_winner_is_chosen_among_those_that_were_as_quick():
    report = build(
        with_valid(result(0, 100_000, 0.4), 0.5),
        with_valid(result(1, 50_000, 0.5), 0.6),
        with_valid(result(2, 25_000, 0.45, best_epoch=11), 0.6),
    )
    assert (report.winner.round, report.strict_winner.round) == (2, 1)


def test_where_validation_chose_nothing_test_names_the_winner():
    config = PruneConfig(rounds=1, select_on="test")
    report = build(result(0, 100_000, 0.4), result(1, 50_000, 0.5), config=config)
    assert report.chosen_on == "test"
    assert report.winner_by_validation is None
    assert report.winner == report.sparsest_winner


@pytest.mark.parametrize(("p_value", "wins"), [(0.03, True), (0.06, False)])
def test_over_seeds_the_choice_must_hold_by_its_own_p(p_value, wins):
    config = PruneConfig(rounds=2, seeds=2, tolerance=0.1)
    rounds = [result(0, 100_000, 0.4), result(1, 50_000, 0.5), result(2, 25_000, 0.4)]
    reports = [build(*rounds, config=PruneConfig(seed=seed)) for seed in range(2)]
    differences = [None, *(difference(r.test["recall@20"], 0.4, p_value=p_value) for r in rounds)]
    report = Report.of_seeds(config.model_dump(), reports, differences[:3])
    assert report.winner_by_validation.model_dump(include={"round", "wins"}) == {
        "round": 2,
        "wins": wins,
    }
    # Holm's adjustment for two rounds leaves neither of them below 0.05.
    assert [ticket.wins for ticket in report.rounds] == [False, False]


def test_the_choice_of_validation_is_in_the_file(report):
    written = json.loads(report.to_json())
    assert written["winner_by_validation"] == {
        "round": 2,
        "density": 0.25,
        "p_value": 0.01,
        "wins": True,
    }
    assert written["sparsest_winner"] == {"round": 2, "density": 0.25}
    assert written["dense_converged"] is True


@pytest.mark.parametrize(
    ("max_epochs", "patience", "converged"),
    [(20, 3, False), (20, 2, True), (21, 3, True), (20, 100, False)],
)
def test_a_dense_model_stopped_before_its_patience_ran_out_had_not_converged(
    max_epochs, patience, converged
):
    config = PruneConfig(rounds=1, max_epochs=max_epochs, patience=patience, eval_every=5)
    report = build(result(0, 100_000, 0.4), result(1, 50_000, 0.5), config=config)
    assert report.dense_converged == converged
    (ticket,) = report.rounds
    assert (ticket.wins, ticket.strict) == (True, True if converged else None)
    assert (report.sparsest_strict_winner is None) == (not converged)
    assert (report.strict_winner is None) == (not converged)
    assert report.winner.round == 1


def test_one_seed_that_had_not_converged_is_enough():
    short = result(0, 100_000, 0.4).model_copy(update={"epochs": 15})
    ticket = result(1, 50_000, 0.5)
    config = {"rounds": 1, "max_epochs": 20, "patience": 3, "eval_every": 5}
    reports = [
        build(dense, ticket, config=PruneConfig(seed=seed, **config))
        for seed, dense in enumerate((result(0, 100_000, 0.4), short))
    ]
    together = Report.of_seeds(
        PruneConfig(seeds=2, **config).model_dump(), reports, [None, ticket.difference]
    )
    assert together.unconverged_seeds == [0]
    assert not together.dense_converged
    # A report of an older release tells it by the means: 17.5 epochs, the best of them 10.
    old = together.model_copy(update={"unconverged_seeds": None})
    assert not old.dense_converged
