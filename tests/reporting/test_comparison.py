import csv
import io
import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt

from pyg_lth import InputError, PruneConfig, Report, TrainConfig, find_tickets
from pyg_lth.evaluation.significance import Difference
from pyg_lth.pruning.masks import Mask
from pyg_lth.reporting.comparison import Comparison, compare, labels
from pyg_lth.reporting.formats import agreements_to_csv, tables, to_csv, to_latex, to_markdown
from pyg_lth.results.report import Popularity, RoundResult, Ticket, Winner
from pyg_lth.results.run_folder import RunFolder


def metrics(recall, topk=20):
    return {f"precision@{topk}": recall / 2, f"recall@{topk}": recall, f"ndcg@{topk}": recall / 4}


def ticket(round, remaining, recall, *, size=1000, topk=20, sd=None, wins="", cost=None):
    return Ticket(
        round=round,
        density=remaining / size,
        remaining=remaining,
        epochs=20,
        best_epoch=10 if wins == "strict" else 10 + round,
        seconds=10.0,
        cost_seconds=10.0 * (round + 1) if cost is None else cost,
        valid=metrics(0.6 if wins else 0.3, topk),
        test=metrics(recall, topk),
        test_sd=None if sd is None else metrics(sd, topk),
        epochs_to_dense=None,
        difference=Difference(relative=recall / 0.4 - 1, low=-0.25, high=0.25, p_value=0.01),
        p_adjusted=0.03,
        wins=wins != "",
        strict=wins == "strict",
    )


def build(*tickets, config=None, size=1000, seeds=None, sd=None, dense_seconds=10.0):
    """A report on a dense model of recall 0.4 and these tickets."""
    config = config or PruneConfig(rounds=len(tickets))
    topk = config.topk

    def sparsest(found):
        last = min(found, key=lambda t: t.density, default=None)
        return last and Winner(round=last.round, density=last.density)

    return Report(
        config={"dataset": "log.csv", "root": "data", **config.model_dump()},
        seeds=seeds or [config.seed],
        groups=None,
        dense=RoundResult(
            round=0,
            density=1.0,
            remaining=size,
            epochs=20,
            best_epoch=10,
            seconds=dense_seconds,
            cost_seconds=dense_seconds,
            valid=metrics(0.5, topk),
            test=metrics(0.4, topk),
            test_sd=None if sd is None else metrics(sd, topk),
        ),
        popularity=Popularity(valid=metrics(0.2, topk), test=metrics(0.1, topk)),
        rounds=list(tickets),
        sparsest_winner=sparsest([t for t in tickets if t.wins]),
        sparsest_strict_winner=sparsest([t for t in tickets if t.strict]),
        unconverged_seeds=[],
    )


def of_settings(**settings):
    return build(config=PruneConfig(**settings))


@pytest.fixture
def compare_reports(tmp_path):
    """Compare reports under the labels a, b, c, ..., each in a folder that begins with its own."""

    def run(*reports, graphs=None, with_overlap=False):
        folders = []
        for index, report in enumerate(reports):
            folder = RunFolder(tmp_path / "abcdefgh"[index])
            folder.begin(report.config, graphs[index] if graphs else "graph", resume=False)
            folder.write_report(report)
            folders.append((folder.path.name, folder))
        return compare(folders, with_overlap)

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small_graph, quick_config):
    """Folders of short runs on a small graph."""
    root = tmp_path_factory.mktemp("runs")
    for name, settings in {
        "imp": {"seeds": 2},
        "oneshot": {"seeds": 2, "method": "oneshot"},
        "reinit": {"method": "reinit"},
        "later": {"seed": 1, "rounds": 1},
        "wide": {"dim": 8},
    }.items():
        config = quick_config(model="mf", **settings)
        find_tickets(small_graph, config, run_dir=root / name)
    return root


# Labels.


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([{}], ["imp"]),
        ([{}, {"method": "oneshot"}], ["imp", "oneshot"]),
        ([{}, {"model": "mf"}], ["lightgcn", "mf"]),
        ([{}, {"layers": 2}], ["layers 3", "layers 2"]),
        ([{"dim": 16}, {"dim": 32}], ["dim 16", "dim 32"]),
        (
            [{"loss": "softmax", "method": "snip"}, {"dim": 16}],
            ["snip softmax dim 32", "imp bpr dim 16"],
        ),
        ([{}, {"lr_decay": 0.9}], ["lr decay 1.0", "lr decay 0.9"]),
        ([{}, {"scope": "row"}], ["scope joint", "scope row"]),
        ([{}, {"rewind_epoch": 5}], ["rewind epoch 0", "rewind epoch 5"]),
        ([{}, {"mask_from": "runs/other"}], ["own masks", "masks of other"]),
        ([{"seed": 3}, {"seed": 4}], ["seed 3", "seed 4"]),
        ([{"seed": 3}, {"seed": 3, "seeds": 5}], ["seed 3", "seeds 3-7"]),
        ([{"seed": 3, "dim": 8}, {}], ["dim 8 seed 3", "dim 32 seed 0"]),
        ([{"rounds": 3, "dim": 8}, {"rounds": 5}], ["dim 8", "dim 32"]),
        ([{"rounds": 3}, {"rounds": 5}], ["rounds 3", "rounds 5"]),
        ([{"device": "cpu"}, {"device": "cuda"}], ["device cpu", "device cuda"]),
    ],
)
def test_labels_are_the_settings_that_differ(settings, expected):
    assert labels([of_settings(**values) for values in settings]) == expected


def test_a_data_set_is_called_by_its_file_and_an_absent_setting_said():
    first, second = of_settings(), of_settings()
    second.config.update(dataset="logs/other.csv.gz", core=10)
    first.config.update(core=None)
    assert labels([first, second]) == ["log no core", "other core 10"]


def test_a_dense_training_is_called_dense_and_lacks_what_it_has_no_setting_of():
    dense = build(config=TrainConfig())
    assert labels([dense]) == ["dense"]
    reports = [dense, of_settings(amount=0.1), of_settings(amount=0.2)]
    assert labels(reports) == ["dense", "imp amount 0.1", "imp amount 0.2"]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["x/one", "x/two", "x/dim"], ["dim 32 one", "dim 32 two", "dim 8"]),
        (["x/one", "y/one", "x/dim"], ["dim 32 x/one", "dim 32 y/one", "dim 8"]),
        (["x/one", "x/one", "x/dim"], ["dim 32 run 1", "dim 32 run 2", "dim 8"]),
        ([], ["dim 32 run 1", "dim 32 run 2", "dim 8"]),
    ],
)
def test_runs_of_equal_settings_get_the_names_of_their_folders(folders, expected):
    reports = [of_settings(), of_settings(), of_settings(dim=8)]
    assert labels(reports, [Path(folder) for folder in folders]) == expected


def test_runs_that_differ_in_nothing_are_called_by_their_folders_alone():
    assert labels([of_settings()] * 2, [Path("one"), Path("two")]) == ["one", "two"]


# Rows.


def shown(comparison):
    """Density, then round and best of each entry."""
    return [
        (row.density, [entry and (entry.round, entry.best) for entry in row.entries])
        for row in comparison.rows
    ]


def test_tickets_of_a_density_stand_in_a_row_with_the_best_of_them_marked(compare_reports):
    compared = compare_reports(
        build(ticket(1, 800, 0.3), ticket(2, 500, 0.4)),
        build(ticket(1, 500, 0.5), ticket(2, 100, 0.2)),
        build(ticket(1, 800, 0.3), ticket(2, 500, 0.1)),
    )
    assert shown(compared) == [
        (0.8, [(1, True), None, (1, True)]),
        (0.5, [(2, False), (1, True), (2, False)]),
        (0.1, [None, (2, False), None]),
    ]
    assert compared.notes == []


def test_an_entry_is_the_ticket_of_its_report(compare_reports):
    report = build(ticket(1, 800, 0.3, wins="strict"), ticket(2, 500, 0.4, sd=0.01))
    compared = compare_reports(report)
    for row, expected in zip(compared.rows, report.rounds, strict=True):
        assert row.entries[0].model_dump(exclude={"best"}) == expected.model_dump()


@pytest.mark.parametrize(
    ("sizes", "remaining", "rows"),
    [
        ((100_000, 100_000), (50_000, 50_000), 1),
        ((100_000, 100_000), (50_000, 50_001), 2),
        ((100_000, 200_000), (50_000, 100_001), 1),
        ((100_000, 200_000), (50_000, 99_905), 1),
        ((100_000, 200_000), (50_000, 100_101), 2),
        ((100_000, 200_000), (50_000, 99_895), 2),
    ],
)
def test_tables_of_one_size_match_by_count_and_others_within_rounding(
    compare_reports, sizes, remaining, rows
):
    compared = compare_reports(
        *(
            build(ticket(1, left, 0.3, size=size), size=size)
            for size, left in zip(sizes, remaining, strict=True)
        )
    )
    assert len(compared.rows) == rows
    assert sum(entry is not None for row in compared.rows for entry in row.entries) == 2


def test_densities_of_two_dimensions_match_round_by_round(compare_reports):
    def pruned(size):
        left = [size - size * 3 // 10]
        for _ in range(7):
            left.append(left[-1] - left[-1] * 3 // 10)
        return [ticket(index, n, 0.3, size=size) for index, n in enumerate(left, start=1)]

    small, large = pruned(16 * 1800), pruned(32 * 1800)
    compared = compare_reports(build(*small, size=16 * 1800), build(*large, size=32 * 1800))
    assert [[entry.round for entry in row.entries] for row in compared.rows] == [
        [round, round] for round in range(1, 9)
    ]


def test_two_rounds_of_one_run_never_share_a_row(compare_reports):
    compared = compare_reports(build(ticket(1, 3, 0.3), ticket(2, 3, 0.2)))
    assert shown(compared) == [(0.003, [(1, False)]), (0.003, [(2, False)])]


def test_nothing_is_best_where_there_is_nothing_to_compare_with(compare_reports):
    assert shown(compare_reports(build(ticket(1, 800, 0.3)))) == [(0.8, [(1, False)])]


@pytest.mark.parametrize(
    ("settings", "graphs", "named"),
    [
        ({"select_on": "test"}, None, "select_on"),
        ({"topk": 5}, None, "topk"),
        ({}, ["one", "other"], "data set"),
        ({"select_on": "test", "topk": 5}, ["one", "other"], "data set, select_on and topk"),
    ],
)
def test_figures_that_cannot_be_compared_are_said_to_be_so(
    compare_reports, settings, graphs, named
):
    config = PruneConfig(rounds=1, **settings)
    compared = compare_reports(
        build(ticket(1, 800, 0.3)),
        build(ticket(1, 800, 0.4, topk=config.topk), config=config),
        graphs=graphs,
    )
    note = f"The runs differ in {named}: their figures are not comparable."
    assert compared.notes[0] == note
    assert shown(compared) == [(0.8, [(1, False), (1, False)])]
    assert "bold:" not in tables(compared)[0].caption
    assert note in to_latex(compared).replace("\\_", "_")
    assert note in to_markdown(compared).replace("\\_", "_")


def test_every_table_with_a_run_selected_on_test_says_so(compare_reports):
    on_test = PruneConfig(rounds=1, select_on="test")
    mixed = compare_reports(build(ticket(1, 800, 0.3)), build(ticket(1, 8, 0.3), config=on_test))
    assert "Epochs and masks of b were SELECTED ON TEST" in mixed.notes[1]
    assert "Epochs and masks of the others were chosen on validation" in to_markdown(mixed)
    assert "SELECTED ON TEST" in to_markdown(mixed)
    assert all("SELECTED ON TEST" in text for text in to_latex(mixed).split("{table}")[1::2])
    lines = read_csv(to_csv(mixed))
    assert [line["select_on"] for line in lines] == ["valid", "valid", "test", "test"]


def test_a_table_selected_on_test_alone_claims_no_validation(compare_reports):
    on_test = PruneConfig(rounds=1, select_on="test")
    compared = compare_reports(build(ticket(1, 800, 0.3), config=on_test))
    assert compared.notes[0].startswith("Epochs and masks were SELECTED ON TEST")
    assert "validation" not in to_markdown(compared)


def test_unfinished_runs_and_runs_without_a_common_density_are_named(compare_reports):
    compared = compare_reports(
        build(ticket(1, 800, 0.3), config=PruneConfig(rounds=3)),
        build(ticket(1, 500, 0.3), config=PruneConfig(rounds=1, seeds=2)),
    )
    assert compared.notes == [
        "a has done 1 of 3 rounds so far.",
        "b has done 1 of 2 seeds so far.",
        "No two runs have a ticket of the same density.",
    ]
    assert [run.dense.test["recall@20"] for run in compared.runs] == [0.4, 0.4]


def test_dense_trainings_can_be_compared(compare_reports):
    compared = compare_reports(*[build(config=TrainConfig(dim=dim)) for dim in (8, 16)])
    assert compared.rows == []
    heads = [[line.head for group in t.groups for line in group] for t in tables(compared)]
    assert heads == [["popular", "dense"], ["dense"]]
    assert len(read_csv(to_csv(compared))) == 2


# Runs.


def test_a_run_says_what_its_report_does(compare_reports):
    report = build(
        ticket(1, 800, 0.5, wins="strict"),
        ticket(2, 500, 0.4, wins="yes", cost=77.0),
        ticket(3, 100, 0.3),
        seeds=[4, 5],
        sd=0.01,
        config=PruneConfig(seed=4, seeds=2, rounds=3),
    )
    (run,) = compare_reports(report).runs
    assert (run.label, run.seeds, run.metric) == ("a", [4, 5], "recall@20")
    assert (run.dense, run.popularity) == (report.dense, report.popularity)
    assert (run.sparsest_winner.round, run.sparsest_strict_winner.round) == (2, 1)
    assert (run.winner.round, run.strict_winner.round) == (2, 1)
    assert run.winner_cost_seconds == 77.0
    assert "seeds 4, 5" in run.title


@pytest.mark.parametrize(
    ("settings", "last_cost", "expected"),
    [
        ({}, 40.0, 40.0),
        ({"method": "dynamic"}, 10.0, 40.0),
        # Dense 10, two auxiliary trainings, last training 10: those took 20.
        ({"method": "reinit"}, 40.0, 60.0),
        # Thresholds learned for 35, then 10.
        ({"method": "pep"}, 45.0, 75.0),
        ({"method": "reinit", "mask_from": "other"}, 99.0, 40.0),
    ],
)
def test_the_time_of_a_run_has_the_trainings_that_only_find_masks_in_it(
    compare_reports, settings, last_cost, expected
):
    tickets = [ticket(1, 800, 0.3), ticket(2, 500, 0.3), ticket(3, 100, 0.3, cost=last_cost)]
    config = PruneConfig(rounds=3, **settings)
    assert compare_reports(build(*tickets, config=config)).runs[0].seconds == expected


def test_the_time_of_a_real_run_is_that_of_its_trainings(runs):
    folder = RunFolder(runs / "reinit")
    results = folder.read_results()
    dense = results[0].seconds
    auxiliary = folder.read_auxiliary(2)[2] - dense
    assert auxiliary > 0
    (run,) = compare([("reinit", folder)]).runs
    assert run.seconds == pytest.approx(sum(result.seconds for result in results) + auxiliary)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        compare([("a", RunFolder(tmp_path))])


# Overlap.


def living(mask: Mask):
    return {tuple(place) for place in mask.table.nonzero().tolist()}


def test_overlap_is_that_of_the_sets_of_living_entries(runs):
    folders = [(name, RunFolder(runs / name)) for name in ("imp", "oneshot")]
    compared = compare(folders, with_overlap=True)
    pairs = {
        ("imp", "imp"): [(0, 1)],
        ("imp", "oneshot"): [(0, 0), (1, 1)],
        ("oneshot", "oneshot"): [(0, 1)],
    }
    assert len(compared.agreements) == 3 * len(pairs)
    by_density = itertools.groupby(compared.agreements, key=lambda found: found.density)
    for round, (density, found) in enumerate(by_density, start=1):
        for (first, second), agreement in zip(pairs, found, strict=True):
            seeds = pairs[first, second]
            assert (agreement.first, agreement.second) == (first, second)
            assert agreement.seeds == seeds
            shares = []
            for one, two in seeds:
                a, b = (
                    living(RunFolder(runs / name / f"seed-{seed}").read_round(round)[0])
                    for name, seed in ((first, one), (second, two))
                )
                shares.append(len(a & b) / len(a | b))
            assert agreement.jaccard == pytest.approx(sum(shares) / len(shares))
            assert agreement.chance == pytest.approx(density / (2 - density))


def test_runs_without_a_seed_in_common_are_paired_across_seeds(runs):
    folders = [(name, RunFolder(runs / name)) for name in ("later", "imp", "reinit")]
    first = compare(folders, with_overlap=True).agreements[:4]
    assert [(pair.first, pair.second, pair.seeds) for pair in first] == [
        ("later", "imp", [(1, 1)]),
        ("later", "reinit", [(1, 0)]),
        ("imp", "imp", [(0, 1)]),
        ("imp", "reinit", [(0, 0)]),
    ]


def test_masks_of_unlike_tables_have_no_overlap(runs):
    folders = [(name, RunFolder(runs / name)) for name in ("reinit", "wide")]
    compared = compare(folders, with_overlap=True)
    assert compared.agreements == []
    assert "there is no overlap" in compared.notes[-1]
    assert len(tables(compared)) == 2
    assert agreements_to_csv([]).startswith("density,first,second,seeds,jaccard,chance")


def test_masks_of_unlike_graphs_have_no_overlap(tmp_path):
    folders = []
    for name in ("one", "other"):
        folder = RunFolder(tmp_path / name)
        report = build(ticket(1, 2, 0.3, size=4), size=4)
        folder.begin(report.config, name, resume=False)
        folder.write_report(report)
        mask = Mask(torch.eye(2, dtype=torch.bool))
        folder.write_round(report.rounds[0], mask, {"embedding.weight": torch.eye(2)}, {})
        folders.append((name, folder))
    assert compare(folders, with_overlap=True).agreements == []


def test_masks_are_left_alone_unless_asked_for(compare_reports):
    assert compare_reports(build(ticket(1, 800, 0.3))).agreements is None


# What is printed.


@pytest.fixture
def compared(compare_reports):
    return compare_reports(
        build(ticket(1, 800, 0.4123, sd=0.0123, wins="strict"), ticket(2, 500, 0.41, wins="yes")),
        build(ticket(1, 800, 0.4), ticket(2, 500, 0.42), ticket(3, 100, 0.2, cost=1234.5)),
    )


EXPECTED = [
    ["density", "a", "b"],
    ["popular", ".1000", ".1000"],
    ["dense", ".4000", ".4000"],
    ["80.00%", "[.4123±.0123]**", ".4000"],
    ["50.00%", ".4100*", "[.4200]"],
    ["10.00%", "–", ".2000"],
    ["winner", "50.00%", "none"],
    ["strict", "80.00%", "none"],
]
EXPECTED_TIMES = [
    ["density", "a", "b"],
    ["dense", "10.0", "10.0"],
    ["80.00%", "20.0", "20.0"],
    ["50.00%", "30.0", "30.0"],
    ["10.00%", "–", "1,234"],
    ["winner", "30.0", "–"],
    ["whole run", "30.0", "40.0"],
]


def test_the_tables_hold_the_figures_of_the_reports(compared):
    found = [
        [
            table.columns,
            *(
                [line.head, *((f"[{c.text}]" if c.best else c.text) + c.mark for c in line.cells)]
                for group in table.groups
                for line in group
            ),
        ]
        for table in tables(compared)
    ]
    assert found == [EXPECTED, EXPECTED_TIMES]


def read_markdown(text):
    """The tables of a Markdown text, what is bold in brackets."""

    def cell(token):
        parts = {"strong_open": "[", "strong_close": "]"}
        return "".join(parts.get(part.type, part.content) for part in token.children)

    found, tokens = [], MarkdownIt().enable("table").parse(text)
    for token, following in itertools.pairwise(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append(cell(following))
    return found


def test_markdown_renders_to_the_same_cells(compared):
    assert read_markdown(to_markdown(compared)) == [EXPECTED, EXPECTED_TIMES]


def read_latex(text):
    """The tables of a LaTeX text, what is bold in brackets."""
    found = []
    for body in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, flags=re.DOTALL):
        body = re.sub(r"\\rlap\{\$\^\{(\**)\}\$\}", r"\1", body.replace("\\midrule\n", ""))
        body = re.sub(r"\\textbf\{(.*?)\}", r"[\1]", body.replace("$\\pm$", "±"))
        body = body.replace("--", "–").replace("\\%", "%")
        found.append([row.split(" & ") for row in body.split(" \\\\\n")[:-1]])
    return found


def test_latex_holds_the_same_cells(compared):
    text = to_latex(compared)
    assert read_latex(text) == [EXPECTED, EXPECTED_TIMES]
    assert text.count("\\begin{tabular}{rrr}") == text.count("\\end{tabular}") == 2
    assert text.count("\\begin{table}") == text.count("\\end{table}") == 2
    assert text.count("\\midrule") == 6


def test_what_has_a_meaning_in_markdown_or_latex_is_escaped(compared):
    odd = r"50%_of|#1 {x} & $y^2~\n* <b>"
    named = compared.model_copy(
        update={"runs": [r.model_copy(update={"label": odd}) for r in compared.runs]}
    )
    assert read_markdown(to_markdown(named))[0][0] == ["density", odd, odd]
    head = to_latex(named).split("\\toprule\n")[1].split("\n")[0]
    own = (
        r"50\%\_of\textbar{}\#1 \{x\} \& \$y\textasciicircum{}2\textasciitilde{}"
        r"\textbackslash{}n* \textless{}b\textgreater{}"
    )
    assert head == f"density & {own} & {own} \\\\"


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_a_line_with_all_figures_for_each_round(compared):
    lines = read_csv(to_csv(compared))
    assert [(line["run"], line["round"]) for line in lines] == [
        *[("a", "0"), ("a", "1"), ("a", "2")],
        *[("b", "0"), ("b", "1"), ("b", "2"), ("b", "3")],
    ]
    of_run = {index: [e for row in compared.rows if (e := row.entries[index])] for index in (0, 1)}
    entries = [compared.runs[0].dense, *of_run[0], compared.runs[1].dense, *of_run[1]]
    for line, entry in zip(lines, entries, strict=True):
        for name in ("density", "best_epoch", "epochs", "seconds", "cost_seconds", "remaining"):
            assert float(line[name]) == getattr(entry, name)
        for name, value in entry.test.items():
            assert float(line[f"test_{name.split('@')[0]}"]) == value
        if entry.round == 0:
            assert line["wins"] == line["p_adjusted"] == line["low"] == line["best"] == ""
            continue
        for name, value in dict(entry.difference).items():
            assert float(line[name]) == value
        assert float(line["p_adjusted"]) == entry.p_adjusted
        verdict = [line[name] for name in ("wins", "strict", "best")]
        assert verdict == [str(value) for value in (entry.wins, entry.strict, entry.best)]
    assert float(lines[1]["test_sd_recall"]) == 0.0123 and lines[2]["test_sd_recall"] == ""
    assert lines[0]["dataset"] == "log.csv" and lines[0]["popularity_recall"] == "0.1"


def test_json_holds_all_but_the_analyses(runs):
    folders = [(name, RunFolder(runs / name)) for name in ("reinit", "later")]
    assert folders[0][1].read_report().dense.analysis is not None
    compared = compare(folders, with_overlap=True)
    text = compared.to_json()
    assert "analysis" not in text
    assert Comparison.model_validate_json(text) == compared


def test_the_overlap_table_shows_how_many_times_chance_it_is(runs):
    folders = [(name, RunFolder(runs / name)) for name in ("imp", "oneshot")]
    compared = compare(folders, with_overlap=True)
    table = tables(compared)[2]
    assert table.columns == ["density", "chance", "imp", "imp / oneshot", "oneshot"]
    first = compared.agreements[1]
    expected = f"{first.jaccard:.3f} {first.jaccard / first.chance:.1f}×".removeprefix("0")
    assert table.groups[0][0].cells[2].text == expected
    lines = read_csv(agreements_to_csv(compared.agreements))
    assert lines[1]["seeds"] == "0/0 1/1" and float(lines[1]["jaccard"]) == first.jaccard


# The command.


def test_the_command_prints_each_format(run, runs):
    folders = [runs / "imp", runs / "oneshot"]
    named = [(name, RunFolder(runs / name)) for name in ("imp", "oneshot")]
    plain, overlapping = compare(named), compare(named, with_overlap=True)
    for form, expected in {
        "markdown": to_markdown(plain),
        "latex": to_latex(plain),
        "csv": to_csv(plain),
        "json": plain.to_json(),
    }.items():
        code, out, err = run("compare", *folders, "--format", form)
        # These short runs never converge.
        assert (code, out) == (0, expected)
        assert ("had not converged" in err) == (form == "csv")
    code, out, _ = run("compare", *folders, "--format", "json", "--overlap")
    assert (code, out) == (0, overlapping.to_json())
    code, out, _ = run("compare", *folders, "--format", "csv", "--overlap")
    assert (code, out) == (0, agreements_to_csv(overlapping.agreements))
    assert len(json.loads(run("compare", folders[0], "--format", "json")[1])["runs"]) == 1


def test_csv_warns_on_stderr(run, runs):
    code, out, err = run("compare", runs / "later", runs / "wide", "--format", "csv", "--overlap")
    assert code == 0
    assert out == "density,first,second,seeds,jaccard,chance\n"
    assert "there is no overlap" in err


def tables_shown(out):
    """The first table of the output, put together from its blocks: a dictionary by row head."""
    rows = {}
    for line in out.split("Epochs and masks")[0].splitlines():
        if match := re.match(r" +(density|popular|dense|[\d.]+%|winner|strict) +(.*)", line):
            rows.setdefault(match[1], []).extend(match[2].split())
    return rows


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_shows_every_figure_in_the_width_of_the_terminal(
    run, monkeypatch, tmp_path, width
):
    for index, method in enumerate(["imp", "oneshot", "random", "snip", "dynamic", "finetune"]):
        wins = "strict" if method == "finetune" else ""
        tickets = [
            ticket(n, 1000 - 40 * n, 0.3 + index / 100, sd=0.01, wins=wins) for n in range(1, 21)
        ]
        report = build(*tickets, config=PruneConfig(method=method), sd=0.02)
        folder = RunFolder(tmp_path / method)
        folder.begin(report.config, "graph", resume=False)
        folder.write_report(report)
    monkeypatch.setenv("COLUMNS", str(width))
    folders = sorted(tmp_path.iterdir())
    code, out, err = run("compare", *folders)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    body, paths = out.rsplit("\n\n", 1)
    assert max(map(len, body.splitlines())) <= width
    assert paths.count(str(tmp_path)) == 6
    names = [folder.name for folder in folders]
    rows = tables_shown(out)
    assert rows["density"] == names
    assert len([head for head in rows if head.endswith("%")]) == 20
    order = ["imp", "oneshot", "random", "snip", "dynamic", "finetune"]
    values = [f".3{order.index(name)}00±.0100" for name in names]
    values[names.index("finetune")] = ">.3500±.0100**"
    assert rows["96.00%"] == rows["20.00%"] == values


def test_long_names_of_folders_are_broken(run, monkeypatch, tmp_path, compare_reports):
    names = [f"synthetic-lightgcn-imp-20250101-12000{index}" for index in range(3)]
    for name in names:
        folder = RunFolder(tmp_path / name)
        report = build(ticket(1, 800, 0.4, sd=0.01))
        folder.begin(report.config, "graph", resume=False)
        folder.write_report(report)
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run("compare", *(tmp_path / name for name in names))
    assert len(re.findall("80.00%", out)) == 2
    assert max(map(len, out.rsplit("\n\n", 1)[0].splitlines())) <= 80


def test_a_block_leaves_out_rows_that_are_empty_in_it(run, monkeypatch, tmp_path):
    for index in range(2):
        report = build(ticket(1, 800 - index, 0.3), config=PruneConfig(dim=8 + index, rounds=1))
        folder = RunFolder(tmp_path / str(index))
        folder.begin(report.config, "graph", resume=False)
        folder.write_report(report)
    monkeypatch.setenv("COLUMNS", "22")
    _, out, _ = run("compare", *sorted(tmp_path.iterdir()))
    assert (out.count("80.00%"), out.count("79.90%")) == (2, 2)


@pytest.mark.parametrize(
    ("folder", "words"), [("empty", ["config.json"]), ("absent", ["absent", "not exist"])]
)
def test_a_folder_that_holds_no_run_is_one_line(run, tmp_path, folder, words):
    (tmp_path / "empty").mkdir()
    code, out, err = run("compare", tmp_path / folder)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert all(word in err for word in words)


def test_help_explains_the_command(run):
    code, out, err = run("compare", "--help")
    assert (code, err) == (0, "")
    assert "--overlap" in out and "latex" in out
