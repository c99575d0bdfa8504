import json
import re

import pytest

from pyg_lth import PruneConfig, Report, TrainConfig
from pyg_lth.report import (
    COLUMNS,
    Popularity,
    RoundResult,
    caption,
    conclusion,
    table_rows,
    to_markdown,
)


def metrics(recall):
    return {"precision@20": recall / 2, "recall@20": recall, "ndcg@20": recall / 4}


def result(round, remaining, recall, best_epoch=10):
    return RoundResult(
        round=round,
        density=remaining / 100_000,
        remaining=remaining,
        epochs=20,
        best_epoch=best_epoch,
        seconds=12.34,
        valid=metrics(recall + 0.1),
        test=metrics(recall),
    )


def build(*results, config=None, popularity=0.1):
    config = config or PruneConfig(rounds=3)
    return Report.from_results(
        config.model_dump(),
        Popularity(valid=metrics(0.2), test=metrics(popularity)),
        list(results),
        metric="recall@20",
        tolerance=getattr(config, "tolerance", 0.0),
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
    assert "tolerance 0.3" in caption(report)


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
    assert table_rows(report) == [
        ("popular", "", "", "", "0.1000", "-75.0%", "0.0250", "", ""),
        ("dense", "100.00%", "100,000", "10/20", "0.4000", "", "0.1000", "12.3", ""),
        ("1", "50.00%", "50,000", "10/20", "0.5000", "+25.0%", "0.1250", "12.3", "strict"),
        ("2", "25.00%", "25,000", "15/20", "0.4000", "+0.0%", "0.1000", "12.3", "yes"),
        ("3", "12.50%", "12,500", "10/20", "0.3000", "-25.0%", "0.0750", "12.3", "no"),
    ]


def test_every_row_has_as_many_cells_as_there_are_columns(report):
    assert {len(row) for row in table_rows(report)} == {len(COLUMNS)}


def test_a_dense_model_that_finds_nothing_has_no_change_to_show():
    report = build(result(0, 100_000, 0.0), result(1, 50_000, 0.2))
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
