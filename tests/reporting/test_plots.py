import errno
import itertools
import os
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from pyg_lth import find_tickets
from pyg_lth.errors import InputError
from pyg_lth.evaluation.significance import Difference
from pyg_lth.reporting import plots
from pyg_lth.reporting.plots import figures, render, save
from pyg_lth.results.report import Popularity, Winner
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.results.text import BEYOND

ALL = ["metric", "epochs", "beyond", "density_by_group", "learning"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_graph, quick_config):
    """A search of five rounds."""
    path = tmp_path_factory.mktemp("run") / "imp"
    find_tickets(small_graph, quick_config(rounds=5), run_dir=path)
    return RunFolder(path)


@pytest.fixture(scope="module")
def of_two_seeds(tmp_path_factory, small_graph, quick_config):
    path = tmp_path_factory.mktemp("run") / "seeds"
    find_tickets(small_graph, quick_config(rounds=2, seeds=2, seed=7), run_dir=path)
    return RunFolder(path)


@pytest.fixture(scope="module")
def drawn(finished):
    """Its figures."""
    return draw(finished)


@pytest.fixture
def edited(tmp_path, finished):
    """Copy the finished search, with other results in its report."""
    numbers = iter(range(100))

    def edit(wins=(), config=(), results=lambda result: {}, num_rounds=5, **settings):
        report = finished.read_report()
        config = {**report.config, **dict(config)}

        def held(ticket):
            """A ticket that wins holds on validation too, and is as good as dense on test."""
            if ticket.round not in wins:
                return {"valid": {"recall@5": 0.0}}
            found = {**ticket.test, "recall@5": max(1.0, recall(ticket))}
            return {"valid": {"recall@5": 1.0}, "test": found}

        tickets = [
            ticket.model_copy(
                update={"wins": ticket.round in wins, **(held(ticket) if wins else {"valid": None})}
                | results(ticket)
            )
            for ticket in report.rounds[:num_rounds]
        ]
        last = max(
            (ticket for ticket in tickets if ticket.wins), key=lambda t: t.round, default=None
        )
        winner = last and Winner(round=last.round, density=last.density)
        changed = {
            "config": config,
            "dense": report.dense.model_copy(update=results(report.dense)),
            "rounds": tickets,
            "sparsest_winner": winner,
            **settings,
        }
        content = report.model_copy(update=changed).model_dump(mode="json", by_alias=True)
        folder = RunFolder(tmp_path / f"run-{next(numbers)}")
        folder.begin(config, "graph", resume=False)
        folder.write_epochs(finished.read_epochs(6))
        folder._write_json(folder.path / "report.json", content)
        return folder

    return edit


def draw(*folders):
    return figures([(folder.path.name, folder) for folder in folders])


def line(axes, label):
    return next(line for line in axes.get_lines() if line.get_label() == label)


def points(axes, label):
    return [tuple(map(float, point)) for point in line(axes, label).get_xydata()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def heading(figure):
    return " ".join(figure.get_suptitle().split())


def recall(result):
    return result.test["recall@5"]


def test_the_metric_is_drawn_against_density(finished, drawn):
    report = finished.read_report()
    axes = drawn["metric"].axes[0]
    results = [report.dense, *report.rounds]
    assert points(axes, "imp") == [(result.density, recall(result)) for result in results]
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    assert axes.get_ylabel() == "Test recall@5"


def test_the_band_is_the_interval_of_the_difference_times_dense(finished, drawn):
    report = finished.read_report()
    (band,) = drawn["metric"].axes[0].collections
    drawn = {tuple(vertex) for vertex in band.get_paths()[0].vertices.tolist()}
    dense = recall(report.dense)
    assert (1.0, dense) in drawn
    for ticket in report.rounds:
        assert (ticket.density, dense * (1 + ticket.difference.low)) in drawn
        assert (ticket.density, dense * (1 + ticket.difference.high)) in drawn


def test_a_round_without_an_interval_leaves_a_gap_in_the_band(edited):
    none = Difference(relative=None, low=None, high=None, p_value=1.0)
    folder = edited(results=lambda r: {"difference": none} if r.round == 2 else {})
    (band,) = draw(folder)["metric"].axes[0].collections
    drawn = {vertex[0] for path in band.get_paths() for vertex in path.vertices.tolist()}
    densities = [ticket.density for ticket in folder.read_report().rounds]
    assert [density in drawn for density in densities] == [True, False, True, True, True]


def test_winners_are_filled_losers_hollow_and_the_sparsest_winner_ringed(edited):
    folder = edited(wins={1, 3})
    name = folder.path.name
    rounds = folder.read_report().rounds
    figure = draw(folder)["metric"]
    axes = figure.axes[0]
    place = [(ticket.density, recall(ticket)) for ticket in rounds]
    assert points(axes, f"{name}: wins") == [place[0], place[2]]
    assert points(axes, f"{name}: does not win") == [place[1], place[3], place[4]]
    assert points(axes, f"{name}: winner") == [place[2]]
    assert line(axes, f"{name}: wins").get_markerfacecolor() == plots.COLORS[0]
    assert line(axes, f"{name}: does not win").get_markerfacecolor() == "white"
    assert [text.get_text() for text in axes.texts] == ["36.1%"]
    assert {"wins", "does not win", "winner"} < set(legend(figure))


def test_without_a_winner_none_is_marked(edited):
    figure = draw(edited())["metric"]
    assert not figure.axes[0].texts
    assert not {"wins", "winner"} & set(legend(figure))


def test_dense_and_popularity_are_lines_across(finished, drawn):
    report = finished.read_report()
    figure = drawn["metric"]
    for name, style, result in (
        ("dense model", "--", report.dense),
        ("popularity", ":", report.popularity),
    ):
        label = next(text for text in legend(figure) if text.startswith(name))
        assert f"{recall(result):.4g}" in label
        across = [found for found in figure.axes[0].get_lines() if found.get_linestyle() == style]
        assert [found.get_ydata() for found in across] == [[recall(result)] * 2]


def test_popularity_far_below_does_not_flatten_the_curves(edited):
    def results(result):
        none = Difference(relative=None, low=None, high=None, p_value=1.0)
        metrics = {"recall@5": 0.5 - 0.01 * result.round}
        return {"test": metrics, "difference": none if result.round else None}

    popularity = Popularity(valid=None, test={"recall@5": 0.3})
    figure = draw(edited(results=results, popularity=popularity))["metric"]
    assert figure.axes[0].get_ylim() == pytest.approx((0.446, 0.504))
    assert "popularity 0.3, below" in legend(figure)


def test_seeds_have_their_standard_deviation_as_error_bars(of_two_seeds):
    report = of_two_seeds.read_report()
    axes = draw(of_two_seeds)["metric"].axes[0]
    (bars,) = axes.containers
    drawn = [segment.tolist() for segment in bars[2][0].get_segments()]
    for result, (low, high) in zip([report.dense, *report.rounds], drawn, strict=True):
        spread = result.test_sd["recall@5"]
        assert low == pytest.approx([result.density, recall(result) - spread])
        assert high == pytest.approx([result.density, recall(result) + spread])


def test_epochs_are_drawn_against_density(edited):
    epochs = {1: 2, 2: None, 3: 4, 4: None, 5: None}
    folder = edited(results=lambda r: {"epochs_to_dense": epochs.get(r.round)})
    report = folder.read_report()
    best, reached = draw(folder)["epochs"].axes
    results = [report.dense, *report.rounds]
    of_dense = report.dense.best_epoch
    assert points(best, folder.path.name) == [(r.density, r.best_epoch) for r in results]
    x, y = line(reached, folder.path.name).get_data()
    np.testing.assert_array_equal(x, [result.density for result in results])
    np.testing.assert_array_equal(y, [of_dense, 2, np.nan, 4, np.nan, np.nan])
    for axes in (best, reached):
        assert line(axes, f"dense's best epoch {of_dense}").get_ydata() == [of_dense] * 2
        assert axes.get_ylim()[0] == 0


def test_what_lists_show_has_a_panel_each_of_its_own_scale(finished, drawn):
    report = finished.read_report()
    for axes, name in zip(drawn["beyond"].axes, BEYOND, strict=True):
        values = [r.beyond[f"{name}@5"] for r in (report.dense, *report.rounds)]
        assert [y for _, y in points(axes, "imp")] == values
        assert axes.get_xlim()[0] > axes.get_xlim()[1]
    assert len({axes.get_ylim() for axes in drawn["beyond"].axes}) > 1


def test_a_report_of_an_older_release_has_no_such_figure(edited):
    assert "beyond" not in draw(edited(results=lambda result: {"beyond": None}))


def test_density_of_the_groups_is_the_analysis(finished, drawn):
    users, items = drawn["density_by_group"].axes
    for ticket in finished.read_report().rounds:
        for axes, found in (
            (users, ticket.analysis.density_by_user_group),
            (items, ticket.analysis.density_by_item_group),
        ):
            drawn = line(axes, f"{100 * ticket.density:.3g}%")
            np.testing.assert_array_equal(drawn.get_xdata(), range(1, 11))
            np.testing.assert_array_equal(drawn.get_ydata(), found)


def test_groups_that_are_empty_or_died_out_can_be_drawn(edited):
    def results(result):
        groups = [0.0, *[result.density] * 8, None]
        kept = {"density_by_user_group": groups, "density_by_item_group": groups}
        return {"analysis": result.analysis.model_copy(update=kept)}

    figure = draw(edited(results=results))["density_by_group"]
    render(figure, "png")
    axes = figure.axes[0]
    assert axes.transData.transform((1, 0))[1] > axes.transAxes.transform((0, 0))[1]
    assert "0%" in [text.get_text() for text in axes.get_yticklabels()]
    assert np.isnan(axes.get_lines()[0].get_ydata()[-1])


def test_no_more_than_a_handful_of_rounds_is_drawn_and_the_sparsest_winner(finished, edited):
    first = finished.read_report().rounds[0]
    many = [
        first.model_copy(
            update={
                "round": n,
                "density": 0.9**n,
                "wins": n == 9,
                "valid": {"recall@5": float(n == 9)},
                "test": {**first.test, "recall@5": 1.0},
            }
        )
        for n in range(1, 31)
    ]
    figure = draw(edited(rounds=many))["density_by_group"]
    assert len(legend(figure)) == plots.HANDFUL + 1
    assert {"90%", "38.7%", "4.24%"} < set(legend(figure))


def test_learning_curves_are_the_evaluations_of_the_selection_metric(finished, drawn):
    report = finished.read_report()
    figure = drawn["learning"]
    axes = figure.axes[0]
    names = ["dense", *(f"{100 * ticket.density:.3g}%" for ticket in report.rounds)]
    assert legend(figure) == names
    for name, result in zip(names, [report.dense, *report.rounds], strict=True):
        expected = [
            (record.epoch, record.valid["recall@5"])
            for record in finished.read_epochs(6)
            if record.round == result.round and record.valid is not None
        ]
        assert points(axes, name) == expected
        (marked,) = line(axes, name).get_markevery()
        assert expected[marked][0] == result.best_epoch
    assert axes.get_ylabel() == "Validation recall@5"


def test_of_several_seeds_the_first_has_its_groups_and_curves_shown(of_two_seeds):
    first = of_two_seeds.of_seed(7)
    drawn, alone = draw(of_two_seeds), draw(first)
    for name in ("density_by_group", "learning"):
        assert render(drawn[name], "svg") == render(alone[name], "svg")
        assert heading(drawn[name]).endswith("seed 7")
    assert heading(drawn["metric"]).endswith("seeds 7, 8")


def test_runs_that_share_their_dense_model_have_it_drawn_once(finished, edited):
    other = edited(wins={1}, config={"method": "oneshot"})
    drawn = draw(finished, other)
    axes = drawn["metric"].axes[0]
    name = other.path.name
    assert len([found for found in axes.get_lines() if found.get_linestyle() == "--"]) == 1
    assert points(axes, "imp")[0] == points(axes, name)[0]
    assert line(axes, "imp").get_color() != line(axes, name).get_color()
    assert line(axes, "imp: wins").get_marker() != line(axes, f"{name}: wins").get_marker()
    assert f"{name}, wins to 71.1%" in legend(drawn["metric"])
    assert "dense" in legend(drawn["learning"])
    assert f"{name}, 71.1%" in legend(drawn["learning"])
    assert "method" not in heading(drawn["metric"])
    assert "scope joint" in heading(drawn["metric"])


def test_runs_of_unlike_dense_models_have_each_drawn_in_their_colour(finished, edited):
    other = edited(results=lambda r: {"test": {"recall@5": 0.5}} if r.round == 0 else {})
    axes = draw(finished, other)["metric"].axes[0]
    for folder, value in ((finished, recall(finished.read_report().dense)), (other, 0.5)):
        name = folder.path.name
        across = line(axes, f"{name}: dense model")
        assert across.get_ydata() == [value] * 2
        assert across.get_color() == line(axes, name).get_color()


def test_each_run_has_a_figure_of_its_groups_under_a_name_of_its_own(edited):
    folder = edited()
    drawn = figures([("dim 4", folder), ("dim/4", folder), ("imp", folder)])
    assert [name for name in drawn if "group" in name] == [
        "density_by_group-dim-4-1",
        "density_by_group-dim-4-2",
        "density_by_group-imp",
    ]


def test_more_runs_than_colours_still_look_unlike(edited):
    folder = edited(num_rounds=1)
    runs = [(str(number), folder) for number in range(9)]
    axes = figures(runs)["epochs"].axes[0]
    looks = {
        (found.get_color(), found.get_marker())
        for found in (line(axes, f"{number}: does not win") for number in range(9))
    }
    assert len(looks) == 9


def test_runs_of_another_metric_are_refused(finished, edited):
    other = edited(config={"topk": 10, "select_by": "recall@10", "select_on": "test"})
    with pytest.raises(InputError, match=r"recall@10 and recall@5: .*`topk`"):
        draw(finished, other)


@pytest.mark.parametrize("select_on", ["valid", "test"])
def test_selection_on_test_is_said_in_every_figure(edited, select_on):
    for figure in draw(edited(config={"select_on": select_on})).values():
        assert ("SELECTED ON TEST" in heading(figure)) == (select_on == "test")


def test_runs_selected_on_test_are_named_beside_others(finished, edited):
    other = edited(config={"select_on": "test"})
    for name, figure in draw(finished, other).items():
        if "group" not in name:
            assert heading(figure).endswith(f"SELECTED ON TEST: {other.path.name}")


def test_a_dense_training_has_only_its_learning_curve(edited):
    drawn = draw(edited(num_rounds=0))
    assert list(drawn) == ["learning"]
    assert legend(drawn["learning"]) == ["dense"]


@pytest.mark.parametrize(("rounds", "recall"), [(1, 0.3), (2, 0.0)])
def test_few_rounds_and_flat_curves_can_be_drawn(edited, rounds, recall):
    metrics = {"precision@5": recall, "recall@5": recall, "ndcg@5": recall}
    none = Difference(relative=None, low=None, high=None, p_value=1.0)

    def results(result):
        return {"test": metrics, "difference": none if result.round else None}

    popularity = Popularity(valid=None, test={"recall@5": 0.0})
    folder = edited(num_rounds=rounds, results=results, popularity=popularity)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw(folder)
        assert list(drawn) == ALL
        render(drawn["metric"], "png")


def test_a_run_without_a_report_is_refused(tmp_path, quick_config):
    folder = RunFolder(tmp_path / "begun")
    folder.begin(quick_config(seeds=2).model_dump(), "graph", resume=False)
    with pytest.raises(InputError, match="no report yet"):
        draw(folder)


def test_names_of_folders_are_no_formulas_and_stay_in_the_legend(edited):
    drawn = figures([("_old", edited()), ("$a$", edited())])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        render(drawn["metric"], "svg")
    assert [text.strip() for text in legend(drawn["metric"])][:2] == ["_old", "$a$"]
    assert not any(text.get_parse_math() for text in drawn["metric"].legends[0].get_texts())


def test_the_same_report_gives_the_same_bytes_whatever_the_settings_of_matplotlib(finished, drawn):
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": "other", "savefig.dpi": 20}):
        again = draw(finished)
    for name in ALL:
        svg = render(drawn[name], "svg")
        # A figure keeps what was once laid out for one format to itself.
        assert render(drawn[name], "png") == render(again[name], "png")
        assert svg == render(again[name], "svg")
        assert b"<dc:date>" not in svg


def test_figures_leave_no_state_behind(finished):
    before = dict(matplotlib.rcParams)
    render(draw(finished)["epochs"], "svg")
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_text_is_large_enough_in_a_column_of_print(drawn):
    for figure in drawn.values():
        assert figure.get_figwidth() == 3.5
        texts = [text for text in figure.findobj(Text) if text.get_text()]
        assert min(text.get_fontsize() for text in texts) >= 7


def test_nothing_reaches_beyond_the_figure(drawn, finished, edited):
    runs = [("imp", finished), ("a" * 90, edited(wins={1, 5})), ("dim 8 " * 20, edited(wins={2}))]
    several = figures(runs)
    for figure in [*drawn.values(), *several.values()]:
        box = figure.get_tightbbox()
        assert box.x0 >= 0 and box.x1 <= figure.get_figwidth()
        assert box.y0 >= 0 and box.y1 <= figure.get_figheight()


def test_files_are_whole_or_as_they_were(tmp_path, drawn, monkeypatch):
    two = {name: drawn[name] for name in ("epochs", "learning")}
    paths = save(two, tmp_path / "figures")
    assert [path.name for path in paths] == [
        "epochs.png",
        "epochs.svg",
        "learning.png",
        "learning.svg",
    ]
    assert sorted(paths) == sorted((tmp_path / "figures").iterdir())
    assert paths[0].read_bytes() == render(drawn["epochs"], "png")

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match=r"cannot be written: no space left"):
        save(two, tmp_path / "figures")
    assert paths[0].read_bytes() == render(drawn["epochs"], "png")


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    """Run the command line in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return run


def test_plot_writes_into_the_run_folder_and_prints_the_files(run, edited):
    folder = edited(num_rounds=1).path
    code, out, err = run("plot", folder)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        str(folder / "figures" / f"{name}.{suffix}") for name in ALL for suffix in ("png", "svg")
    ]
    assert all(Path(path).stat().st_size > 0 for path in out.splitlines())


def test_plot_draws_several_runs_together_with_what_differs_as_labels(run, edited):
    methods = ("imp", "oneshot")
    folders = [edited(config={"method": name}, num_rounds=1).path for name in methods]
    code, out, _ = run("plot", *folders)
    assert code == 0
    assert out.splitlines()[0] == "figures/metric.png"
    assert {"figures/density_by_group-imp.png", "figures/density_by_group-oneshot.png"} < set(
        out.split()
    )


def test_plot_writes_where_it_is_told(run, edited):
    _, out, _ = run("plot", edited(num_rounds=0).path, "--out", "there")
    assert out.splitlines()[0] == "there/learning.png"
    assert Path("there/learning.svg").exists()


def test_without_matplotlib_one_line_names_the_remedy(run, finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run("plot", finished.path)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert 'pip install "pyg-lth[plots]"' in err


def test_plot_of_a_folder_without_a_run_is_one_line(run, tmp_path):
    code, out, err = run("plot", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ") and err.count("\n") == 1


def test_more_than_a_handful_of_runs_have_a_panel_each(edited):
    runs = [edited(config={"seed": seed}) for seed in range(7)]
    figure = draw(*runs)["metric"]
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 7
    for axes in panels:
        assert axes.get_xlim()[0] > axes.get_xlim()[1]
        colors = [line.get_color() for line in axes.lines if len(line.get_xdata()) > 2]
        assert colors.count(plots.REFERENCE) == 7


@pytest.mark.parametrize("least", [0.8, 0.25, 0.05, 0.01, 1e-4])
def test_what_is_written_along_the_density_stays_apart_and_on_the_page(edited, least):
    folder = edited(results=lambda result: {"density": least ** (result.round / 5)})
    for name in ("metric", "epochs", "beyond"):
        figure = draw(folder)[name]
        renderer = FigureCanvasAgg(figure).get_renderer()
        for axes in figure.axes:
            places = [
                label.get_window_extent(renderer)
                for label in axes.get_xticklabels()
                if label.get_visible() and label.get_text()
            ]
            assert not any(a.overlaps(b) for a, b in itertools.combinations(places, 2))
            below = axes.xaxis.label.get_window_extent(renderer)
            assert figure.bbox.x0 <= below.x0 and below.x1 <= figure.bbox.x1
