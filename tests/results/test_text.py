import pytest

from pyg_lth import PruneConfig, Report, TrainConfig
from pyg_lth.evaluation.degree_groups import Groups, GroupSizes
from pyg_lth.evaluation.significance import Difference
from pyg_lth.results.report import Popularity, RoundResult
from pyg_lth.results.text import (
    caption,
    change,
    conclusion,
    headline,
    limits,
    questions,
    subject,
    table_rows,
    title,
    why_none_wins,
)

GROUPS = Groups(
    users=GroupSizes(nodes=[60], interactions=[300]),
    items=GroupSizes(nodes=[40], interactions=[300]),
)
WHICH, MUCH, AGAINST, SURE = "Which ticket wins?", "By how much?", "Against what?", "How sure?"


def metrics(recall):
    return {"precision@20": recall / 2, "recall@20": recall, "ndcg@20": recall / 4}


def result(round, recall, best_epoch=10, p_value=0.2, interval=(-0.05, 0.1), **more):
    low, high = interval
    difference = Difference(relative=recall / 0.4 - 1, low=low, high=high, p_value=p_value)
    remaining = 100_000 // 2**round
    return RoundResult(
        round=round,
        density=remaining / 100_000,
        remaining=remaining,
        epochs=20,
        best_epoch=best_epoch,
        seconds=1.0,
        cost_seconds=1.0,
        valid=metrics(recall),
        test=metrics(recall),
        difference=difference if round else None,
        **more,
    )


def build(*tickets, dense=0.4, popularity=0.1, config=None, **settings):
    config = config or PruneConfig(**{"rounds": len(tickets), **settings})
    return Report.of_seed(
        config.model_dump(),
        GROUPS,
        Popularity(valid=metrics(popularity), test=metrics(popularity)),
        [result(0, dense), *tickets],
    )


def over_seeds(*tickets, **settings):
    """A report on three seeds that all came to the same."""
    reports = [build(*tickets, seed=seed, **settings) for seed in range(3)]
    config = PruneConfig(rounds=len(tickets), seeds=3, **settings)
    differences = [None, *(ticket.difference for ticket in tickets)]
    return Report.of_seeds(config.model_dump(), reports, differences)


def answer(report, question, num_users=500):
    return " ".join(questions(report, num_users)[question])


@pytest.mark.parametrize(("distill", "said"), [(0.5, True), (0.0, False)])
def test_the_title_says_what_tickets_were_taught(distill, said):
    assert ("distill 0.5" in title(build(result(1, 0.4), distill=distill))) == said


def test_the_title_says_who_taught_a_run():
    taught = build(result(1, 0.4), teacher="/data/runs/late")
    assert ", distill 0.9, taught by late, seed" in title(taught)
    assert "taught" not in title(build(result(1, 0.4)))


def test_the_questions_come_in_the_order_to_read_them():
    assert list(questions(build(result(1, 0.5)), None)) == [WHICH, MUCH, AGAINST, SURE]


@pytest.mark.parametrize(
    ("recalls", "round"), [((0.5, 0.4, 0.3), 2), ((0.3, 0.35, 0.2), 2), ((), 0)]
)
def test_the_subject_is_the_sparsest_winner_or_the_best_loser_or_dense(recalls, round):
    tickets = [result(index, recall) for index, recall in enumerate(recalls, start=1)]
    assert subject(build(*tickets)).round == round


def test_which_is_round_density_and_entries():
    assert "Round 1 of 1: density 50.00%, 50,000 of 100,000 entries remain." in answer(
        build(result(1, 0.5)), WHICH
    )


@pytest.mark.parametrize(
    ("epochs", "said"),
    [
        ((10, 10), "The same in the strict reading"),
        ((10, 11), "In the strict reading (best epoch no later than dense's): round 1 of 2"),
        ((11, 11), "In the strict reading (best epoch no later than dense's): none."),
    ],
)
def test_the_strict_reading_stands_beside_the_tolerant_one(epochs, said):
    report = build(result(1, 0.5, epochs[0]), result(2, 0.5, epochs[1]))
    assert answer(report, WHICH).startswith("Round 2 of 2")
    assert said in answer(report, WHICH)


def test_a_strict_winner_of_another_round_has_its_own_difference_and_certainty():
    report = build(result(1, 0.5), result(2, 0.44, best_epoch=15, interval=(0.01, 0.2)))
    for question in (MUCH, SURE):
        text = answer(report, question)
        tolerant, strict = text.split("Strict reading, round 1: ")
        assert "+1.0% to +20.0%" in tolerant
        assert "-5.0% to +10.0%" in strict


def test_how_much_is_values_relative_difference_and_interval():
    text = answer(build(result(1, 0.5)), MUCH)
    assert "recall@20 on test is 0.5000 against dense's 0.4000: +25.0%" in text
    assert "(95% interval -5.0% to +10.0%)" in text
    assert "ndcg@20 is 0.1250 against 0.1000 (+25.0%)" in text


def test_over_seeds_the_values_have_standard_deviations():
    text = answer(over_seeds(result(1, 0.5, p_value=0.01)), MUCH)
    assert "0.5000±0.0000 against dense's 0.4000±0.0000" in text


def test_what_cannot_be_computed_is_said_to_be_missing():
    report = build(result(1, 0.5, interval=(None, None)), dense=0.0)
    assert "against dense's 0.0000: – (no 95% interval)" in answer(report, MUCH)
    assert "no 95% interval" in answer(report, SURE)


@pytest.mark.parametrize(
    ("select_on", "reached", "said"),
    [
        ("valid", 6, "at epoch 6 it was first as good on validation as dense at its best"),
        ("test", 6, "at epoch 6 it was first as good on test as dense at its best"),
        ("valid", None, "it was never as good on validation as dense at its best"),
    ],
)
def test_against_what_names_dense_its_epochs_and_popularity(select_on, reached, said):
    report = build(result(1, 0.5, 7, epochs_to_dense=reached), select_on=select_on, seed=4)
    text = answer(report, AGAINST)
    assert "the same seed (4), all 100,000 entries: recall@20 0.4000, best epoch 10 of 20" in text
    assert f"The ticket: best epoch 7 of 20 trained; {said}." in text
    assert "popularity, for which nothing is trained: recall@20 0.1000" in text
    assert "the ticket against it: +400.0%" in text


def test_that_some_seed_was_never_as_good_is_said():
    text = answer(over_seeds(result(1, 0.5, p_value=0.01)), AGAINST)
    assert "in some seed it was never as good on validation" in text


def test_how_sure_is_interval_p_seeds_and_users():
    text = answer(build(result(1, 0.5, p_value=0.0234), tolerance=0.02), SURE)
    assert "95% interval -5.0% to +10.0%; p = 0.023, not adjusted, since validation chose" in text
    assert "dense's less the tolerance (0.02)" in text
    assert "1 seed. 500 users of test." in text
    assert "users of test" not in answer(build(result(1, 0.5)), SURE, num_users=None)


def test_a_tiny_p_is_not_called_zero():
    assert "p < 0.001, not adjusted" in answer(build(result(1, 0.5, p_value=1e-9)), SURE)


def test_p_decides_with_several_seeds_only():
    assert "With one seed it decides nothing" in answer(build(result(1, 0.5)), SURE)
    text = answer(over_seeds(result(1, 0.5, p_value=0.01)), SURE)
    assert "a ticket wins only where p is below 0.05" in text
    assert "3 seeds." in text


def test_seeds_still_to_come_are_counted():
    report = build(result(1, 0.5), seeds=4)
    assert "1 seed of 4 so far." in answer(report, SURE)


def test_the_limits_name_what_a_verdict_leaves_open():
    one, three = build(result(1, 0.5)), over_seeds(result(1, 0.5), result(2, 0.5))
    on_test = build(result(1, 0.5), select_on="test")
    assert "one seed" in " ".join(limits(one))
    assert "one seed" not in " ".join(limits(three))
    assert "how much these 3 differ" in " ".join(limits(three))
    assert "adjusted for all 2 rounds" in " ".join(limits(three))
    assert "selected on test" in " ".join(limits(on_test))
    assert "selected on test" not in " ".join(limits(one))
    assert limits(build(config=TrainConfig())) == []


def test_a_win_needs_no_excuse():
    assert why_none_wins(build(result(1, 0.5))) == ""
    assert why_none_wins(build()) == ""


def test_why_none_wins_counts_the_reasons():
    report = build(result(1, 0.41), result(2, 0.3), popularity=0.45)
    assert why_none_wins(report) == (
        "recall@20 below 0.4000, dense's: 1 of 2 tickets; recall@20 not above that of the ranking "
        "by popularity, 0.4500: 2 of 2 tickets. The dense model itself (0.4000) does not beat "
        "popularity."
    )
    assert answer(report, WHICH).startswith("None. The best of them: round 1 of 2")


def test_a_ticket_that_is_good_by_chance_does_not_win_over_seeds():
    report = over_seeds(result(1, 0.41, p_value=0.2))
    assert why_none_wins(report) == (
        "as good, but not beyond chance (p of 0.05 or more): 1 of 1 ticket."
    )


def test_without_tickets_the_answers_speak_of_dense():
    trained = build(config=TrainConfig())
    assert answer(trained, WHICH) == "None: there are no tickets."
    assert "only the dense model: recall@20 on test is 0.4000" in answer(trained, MUCH)
    assert "dense against it: +300.0%" in answer(trained, AGAINST)
    assert answer(trained, SURE) == "1 seed. 500 users of test."
    assert answer(build(rounds=3), WHICH) == "None: there are no tickets yet."


@pytest.mark.parametrize(
    ("value", "base", "said"), [(3, 2, "+50.0%"), (1, 2, "-50.0%"), (1, 0, "–"), (None, 2, "–")]
)
def test_a_change_is_relative_and_absent_where_there_is_none(value, base, said):
    assert change(value, base) == said


def with_valid(result, recall):
    return result.model_copy(update={"valid": metrics(recall)})


def test_where_test_names_the_winner_its_p_is_adjusted_and_it_is_said():
    report = build(result(1, 0.5, p_value=0.01), result(2, 0.3), select_on="test")
    assert "p = 0.020, adjusted by Holm for 2 rounds." in answer(report, SURE)
    assert "Test itself chose it: there is no validation part." in answer(report, WHICH)
    assert "Test itself chose it" in conclusion(report)
    assert "test, which judges, names the winner too" in caption(report)


def test_the_winner_of_validation_is_told_with_its_figures_there():
    report = build(result(1, 0.5), with_valid(result(2, 0.45), 0.3))
    # Round 2 would win on test, which chooses nothing.
    assert headline(report).startswith("Sparsest winning ticket: round 1, which keeps 50.00%")
    assert "On test the sparsest that wins is round 2 (25.00%)" in conclusion(report)
    assert (
        "the sparsest that holds on validation: recall@20 there 0.5000, dense's 0.4000, "
        "popularity's 0.1000." in answer(report, WHICH)
    )
    assert "names the winner" not in caption(report)
    assert "test is looked at once for it" in caption(report)


def test_a_choice_that_does_not_hold_on_test_is_told_and_why():
    report = build(result(1, 0.5), with_valid(result(2, 0.3), 0.5))
    assert headline(report) == "No ticket wins."
    assert "Validation chose round 2, which keeps 25.00% of the entries" in conclusion(report)
    assert "on test, looked at once, it does not win" in conclusion(report)
    assert why_none_wins(report) == (
        "the sparsest ticket that holds on validation, round 2, does not win on test: recall@20 "
        "0.3000 is below 0.4000, dense's. Test is looked at once, so no other round takes its "
        "place."
    )
    assert subject(report).round == 2
    assert answer(report, WHICH).startswith("None. What validation chose: round 2 of 2")


def test_where_none_holds_on_validation_the_reasons_are_those_there():
    report = build(with_valid(result(1, 0.5), 0.3))
    assert why_none_wins(report) == (
        "On validation, which names the winner, recall@20 below 0.4000, dense's: 1 of 1 ticket."
    )


def test_a_dense_model_that_had_not_converged_is_named_wherever_strict_would_be():
    report = build(result(1, 0.5), max_epochs=20, patience=3, eval_every=5)
    said = "was stopped at max_epochs"
    assert f"The dense model {said} (20) before its patience had run out (best epoch 10 of 20" in (
        caption(report)
    )
    assert said in answer(report, WHICH) and said in conclusion(report)
    assert "It wins in the strict reading" not in conclusion(report)
    assert "had not converged" in " ".join(limits(report))
    (row,) = (row for row in table_rows(report) if row[0] == "1")
    assert row[-1] == "yes"
    converged = build(result(1, 0.5), max_epochs=20, patience=2, eval_every=5)
    assert said not in caption(converged)
    assert "It wins in the strict reading too." in conclusion(converged)


def test_a_strict_verdict_of_an_older_release_is_not_shown_where_dense_had_not_converged():
    report = build(result(1, 0.5), max_epochs=20, patience=3, eval_every=5)
    old = report.model_copy(
        update={
            "unconverged_seeds": None,
            "rounds": [report.rounds[0].model_copy(update={"strict": True})],
        }
    )
    assert table_rows(old)[-1][-1] == "yes"


def test_the_seeds_that_had_not_converged_are_named():
    report = over_seeds(result(1, 0.5, p_value=0.01), max_epochs=20, patience=3, eval_every=5)
    assert "The dense model of seeds 0, 1, 2 was stopped at max_epochs (20)" in caption(report)
