import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import pytest

from pyg_lth import PruneConfig, Report, find_tickets, train
from pyg_lth.cli.settings import PruneSettings
from pyg_lth.reporting.page import to_html
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.results.text import COLUMNS, table_rows, title

DANGEROUS = "<script>document.title='owned'</script>&\"'>.csv"
WIDTHS = (1280, 375)
# A4 within its margins, in CSS pixels.
PAPER = 702
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, small_graph, quick_config):
    """Runs of all kinds, by name."""
    root = tmp_path_factory.mktemp("runs")
    settings = quick_config(model="mf").model_dump()
    runs = {
        "plain": PruneConfig(**settings),
        "dangerous": PruneSettings(**{**settings, "rounds": 1, "dataset": DANGEROUS}),
        "seeds": PruneConfig(**{**settings, "seeds": 2}),
        "layers": PruneConfig(**{**settings, "model": "lightgcn", "layers": 2, "rounds": 1}),
    }
    for name, config in runs.items():
        find_tickets(small_graph, config, run_dir=root / name)
    train(small_graph, runs["plain"], run_dir=root / "dense")
    folders = {path.name: RunFolder(path) for path in root.iterdir()}

    def alter(name, change):
        """A copy of the plain run whose rounds came to something else."""
        path = shutil.copytree(root / "plain", root / name)
        # What is altered here would be damage to a folder that knows its checksums.
        (path / "checksums.txt").unlink()
        folder = RunFolder(path)
        report = folder.read_report()
        config, results = change(report.config, folder.read_results())
        folder._write_json(path / "config.json", config)
        for round in range(len(results), 1 + len(report.rounds)):
            shutil.rmtree(path / f"round-{round:03d}")
        folder.write_report(Report.of_seed(config, report.groups, report.popularity, results))
        return folder

    def with_recalls(results, recalls):
        return [
            result.model_copy(update={"test": {**result.test, "recall@5": recall}})
            for result, recall in zip(results, recalls, strict=True)
        ]

    def held(config, results):
        """Rounds 1 and 2 hold on validation and win on test."""
        found = with_recalls(results, [0.8, 0.9, 0.85, 0.1])
        valid = [0.8, 0.9, 0.85, 0.1]
        return config, [
            result.model_copy(update={"valid": {**result.valid, "recall@5": recall}})
            for result, recall in zip(found, valid, strict=True)
        ]

    folders["winner"] = alter("winner", held)
    folders["on-test"] = alter(
        "on-test",
        lambda c, r: ({**c, "select_on": "test"}, with_recalls(r, [0.8, 0.3, 0.2, 0.1])),
    )
    folders["begun"] = alter("begun", lambda c, r: (c, r[:1]))
    return folders


@pytest.fixture(scope="module")
def page(folders):
    """The page of a run, by the run's name."""
    return functools.cache(lambda name: to_html(folders[name]))


class Elements(HTMLParser):
    """The start tags of a page, each with its attributes."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def text_of(html):
    """What is between the tags, with its entities resolved and white space joined."""
    parser = HTMLParser()
    parts = []
    parser.handle_data = parts.append
    parser.feed(html)
    return " ".join(" ".join(parts).split())


def code_of(html, starting):
    """A piece of code in a page, by how it starts."""
    parser = HTMLParser()
    parts = []
    parser.handle_data = parts.append
    parser.feed(html)
    (code,) = [part for part in parts if part.startswith(starting)]
    return code


def test_headline_figure_and_table_come_first_and_then_the_answers(page):
    titles = re.findall(r"<h2[^>]*>(.*)</h2>", page("winner"))
    assert titles == [
        "All rounds",
        "Five questions",
        "More figures",
        "Where the entries remain, and whom the ranking serves",
        "Beyond accuracy",
        "How it was made",
    ]
    questions = re.findall(r"<dt>(.*\?)</dt>", page("winner"))
    assert [question.split()[0] for question in questions] == [
        "Which",
        "By",
        "Against",
        "How",
        "How",
    ]


def test_the_headline_is_the_verdict_and_the_settings_follow(page, folders):
    text = text_of(page("winner"))
    report = folders["winner"].read_report()
    assert report.winner.round == 2
    assert text.index("Sparsest winning ticket: round 2") < text.index(title(report))


def test_where_none_wins_the_page_says_so_and_why_before_all_else(page):
    text = text_of(page("on-test").partition("<h1>")[2])
    assert text.startswith("No ticket wins. Why: recall@5 below 0.8000, dense's: 3 of 3 tickets")
    assert "No ticket wins; this is the best of them, that of round 1." in text
    assert "No ticket wins; the last round, 3, at density" in text


@pytest.mark.parametrize(("name", "warns"), [("on-test", True), ("winner", False)])
def test_a_run_selected_on_test_has_a_warning(page, name, warns):
    assert ("SELECTED ON TEST" in text_of(page(name))) == warns


def test_every_setting_and_the_environment_are_there(page, folders):
    text = text_of(page("plain"))
    for name, value in folders["plain"].read_config().items():
        assert f"{name} {'not given' if value is None else value}" in text
    for name, version in folders["plain"].read_environment()["packages"].items():
        assert f"{name} {version}" in text


def test_a_page_has_no_script_and_nothing_to_load(page):
    for tag, attributes in Elements(page("winner")).found:
        assert tag not in ("script", "iframe", "object", "embed", "img")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith(("#", "data:"))
    assert "@import" not in page("winner") and "url(http" not in page("winner")


def test_what_a_data_set_is_called_is_text(page):
    assert DANGEROUS in text_of(page("dangerous"))
    assert "<script" not in page("dangerous")


def test_the_identifiers_of_a_page_are_unique_and_its_references_hold(page):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    elements = Elements(page("winner")).found
    ids = Counter(attributes["id"] for _, attributes in elements if "id" in attributes)
    assert set(ids.values()) == {1}
    referred = {
        name
        for _, attributes in elements
        for value in attributes.values()
        for name in re.findall(r"url\(#([^)]+)\)", value or "")
    }
    referred |= {a["href"][1:] for _, a in elements if a.get("href", "").startswith("#")}
    referred |= {a["aria-labelledby"] for _, a in elements if "aria-labelledby" in a}
    assert len(referred) > 10
    assert referred <= set(ids)


def test_a_figure_tells_its_data_to_those_who_cannot_see_it(page, folders):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    figures = [a for tag, a in Elements(page("winner")).found if tag == "svg"]
    assert [figure["role"] for figure in figures] == ["img"] * 5
    metric, epochs, _, groups, learning = (figure["aria-label"] for figure in figures)
    ticket = folders["winner"].read_report().rounds[1]
    assert f"{ticket.density:.2%}: 0.8500" in metric and "popularity: " in metric
    assert f"{ticket.density:.2%}: {ticket.best_epoch}" in epochs
    assert f"users {ticket.analysis.density_by_user_group[0]:.2%}, " in groups
    assert f"at epoch {ticket.best_epoch}" in learning


def test_without_matplotlib_the_page_has_its_tables_and_says_so(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    html = to_html(folders["winner"])
    assert "<svg" not in html and "<table" in html
    assert "matplotlib is not installed" in text_of(html)


def test_the_same_run_makes_the_same_page(page, folders):
    assert to_html(folders["winner"]) == page("winner")


@pytest.mark.parametrize("name", ["winner", "on-test", "seeds", "layers", "dense"])
def test_the_python_of_a_page_makes_the_table(page, folders, name, monkeypatch):
    monkeypatch.chdir(folders[name].path.parent)
    names = {}
    exec(code_of(page(name), "from pathlib"), names)
    report = folders[name].read_report()
    own = folders[name].of_seed(0) if name == "seeds" else folders[name]
    mask, weight = own.read_round(int(names["folder"].name.removeprefix("round-")))
    assert names["table"].equal(weight * mask.table)
    assert (names["users"].shape, names["items"].shape) == ((40, 4), (30, 4))
    assert ("scores" in names) == (report.config["model"] == "mf")


@pytest.mark.parametrize(("name", "round"), [("winner", 2), ("on-test", 1), ("dense", 0)])
def test_the_files_of_a_page_are_those_of_the_ticket_it_speaks_of(page, folders, name, round):
    for file in ("mask.safetensors", "best.safetensors"):
        place = f"{name}/round-{round:03d}/{file}"
        size = (folders[name].path.parent / place).stat().st_size
        assert f" {place} , {size:,} bytes" in text_of(page(name))


def test_files_that_are_gone_are_not_offered(folders, tmp_path):
    path = shutil.copytree(folders["winner"].path, tmp_path / "thin")
    for file in path.rglob("*.safetensors"):
        file.unlink()
    text = text_of(to_html(RunFolder(path)))
    assert "no longer in the run folder" in text
    assert "users of test" not in text


def test_the_program_of_a_run_from_python_repeats_it(
    page, folders, small_graph, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    names = {"data": small_graph}
    exec(code_of(page("layers"), "import pyg_lth"), names)
    again, first = names["report"], folders["layers"].read_report()
    assert again.config == first.config
    assert [r.test for r in again.rounds] == [r.test for r in first.rounds]


def test_of_several_seeds_the_analysis_is_that_of_the_first(page, folders):
    text, first = text_of(page("seeds")), folders["seeds"].of_seed(0).read_report()
    assert "of seed 0 alone, the first of 2" in text
    assert "The files of seed 0, the first of 2" in text
    assert " seeds/seed-0/round-00" in text
    analysis = first.rounds[-1].analysis
    assert f" 1 {analysis.density_by_column[0]:.2%} 2 {analysis.density_by_column[1]:.2%}" in text
    assert "Seconds of training, evaluation included, means over 2 seeds" in text


def test_the_time_in_all_is_that_of_all_rounds_and_seeds(page, folders):
    report = folders["seeds"].read_report()
    seconds = sum(result.seconds for result in (report.dense, *report.rounds))
    assert f"in all {2 * seconds:,.1f}" in text_of(page("seeds"))


def test_a_run_without_tickets_has_a_page(page):
    assert "There is the dense model. The files:" in text_of(page("dense"))
    assert "None: there are no tickets." in text_of(page("dense"))
    assert "None: there are no tickets yet." in text_of(page("begun"))
    assert "(0 of 3 rounds so far)" in text_of(page("begun"))


def test_report_writes_the_page_of_each_run_and_prints_its_path(run, folders):
    runs = [folders["dense"].path, folders["begun"].path]
    code, out, err = run("report", *runs, "--html")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"{path}/report.html" for path in runs]
    for path in runs:
        assert (path / "report.html").read_text().rstrip().endswith("</html>")
        assert not list(path.glob(".*.tmp"))


def test_a_page_goes_where_it_is_told_to(run, folders, tmp_path):
    path = tmp_path / "new" / "page.html"
    assert run("report", folders["dense"].path, "--html", path)[:2] == (0, f"{path}\n")
    assert path.read_text().startswith("<!DOCTYPE html>")


def test_beside_json_the_path_goes_to_stderr(run, folders):
    code, out, err = run("report", folders["dense"].path, "--html", "--json")
    assert code == 0
    assert json.loads(out)[0]["rounds"] == []
    assert err == f"{folders['dense'].path}/report.html\n"


def test_one_path_for_two_pages_is_refused(run, folders, tmp_path):
    runs = [folders["dense"].path, folders["begun"].path]
    code, out, err = run("report", *runs, "--html", tmp_path / "page.html")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "one path for 2 pages" in err


def test_a_run_taken_for_the_path_is_refused(run, folders):
    code, out, err = run("report", "--html", folders["dense"].path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--html at the end" in err


def test_the_command_of_a_page_repeats_the_settings(run, folders):
    path = folders["dangerous"].path
    run("report", path, "--html")
    command = code_of((path / "report.html").read_text(), "pyg-lth prune")
    # The shell itself says what the words are.
    words = subprocess.check_output(["sh", "-c", f"printf '%s\\0' {command}"], text=True)
    _, out, err = run(*words.split("\0")[1:-1], "--print-config")
    assert err == ""
    assert json.loads(out) == folders["dangerous"].read_config()
    assert "--patience=2" in command and "--reg" not in command


@pytest.fixture(scope="module")
def browser():
    """A headless browser; a machine for continuous integration must have one."""
    missing = pytest.fail if os.environ.get("CI") else pytest.skip
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing("no Chromium is installed: make browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing('playwright is not installed: pip install -e ".[dev]"')
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--disable-gpu", "--disable-quic"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visit(browser, page, tmp_path_factory):
    """Look at the page of a run, loaded once; ``said`` and ``requests`` tell how that went."""
    folder = tmp_path_factory.mktemp("pages")
    context = browser.new_context(offline=True)
    context.set_default_timeout(120_000)

    @functools.cache
    def load(name):
        path = folder / f"{name}.html"
        path.write_text(page(name))
        opened = context.new_page()
        opened.said, opened.requests = [], []
        opened.on("console", lambda message: opened.said.append(message.text))
        opened.on("pageerror", lambda error: opened.said.append(str(error)))
        opened.on("request", lambda request: opened.requests.append(request.url))
        opened.goto(path.as_uri())
        return opened

    def visit(name, width=1280, scheme="light", media="screen"):
        opened = load(name)
        opened.set_viewport_size({"width": width, "height": 900})
        opened.emulate_media(media=media, color_scheme=scheme)
        return opened

    yield visit
    context.close()


@pytest.mark.parametrize("name", ["winner", "on-test", "seeds", "layers", "dense", "dangerous"])
def test_a_browser_has_nothing_to_complain_of_or_to_load(visit, folders, name):
    opened = visit(name)
    assert opened.said == []
    assert [url.rpartition("/")[2] for url in opened.requests] == [f"{name}.html"]
    assert opened.title().startswith(f"{folders[name].path.name}: ")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["winner", "on-test", "seeds", "dangerous"])
def test_all_is_visible_and_nothing_hangs_over(visit, folders, name, width):
    opened = visit(name, width)
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    assert opened.locator(".answers > dt").count() == 5
    heights = opened.evaluate(
        "[...document.querySelectorAll('.answers > dd')].map(e => e.getBoundingClientRect().height)"
    )
    assert len(heights) > 10 and min(heights) > 10
    cells = opened.evaluate(
        "[...document.querySelectorAll('#table tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    rows = table_rows(folders[name].read_report())
    assert cells[0] == list(COLUMNS)
    assert [[re.sub("^[★☆] ", "", cell) for cell in row] for row in cells[1:]] == [*map(list, rows)]
    assert opened.locator("#table .wins").count() == sum(r[-1] in ("yes", "strict") for r in rows)


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_have_a_size_and_so_have_their_letters(visit, width):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    figures = visit("winner", width).locator("figure svg").all()
    assert len(figures) == 5
    for figure in figures:
        box = figure.bounding_box()
        assert 250 < box["width"] <= width and box["height"] > 150
        letters = figure.evaluate(
            "svg => [...svg.querySelectorAll('use')].map(use => use.getBoundingClientRect().height)"
        )
        assert len(letters) > 50 and max(letters) > 5


# Every piece of text with its colour and what is behind it, the topmost of opaque backgrounds.
CONTRAST = """() => {
  const channels = color => color.match(/[\\d.]+/g).map(Number);
  const luminance = color => channels(color).slice(0, 3)
    .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    const found = [];
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      found.push(...(style.backgroundImage.match(/rgba?\\([^)]*\\)/g) || []));
      found.push(style.backgroundColor);
      if ((channels(style.backgroundColor)[3] ?? 1) === 1) break;
    }
    return found.filter(color => (channels(color)[3] ?? 1) === 1);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const worst = [];
  while (texts.nextNode()) {
    const text = texts.currentNode, element = text.parentElement;
    if (!text.data.trim() || element.closest("svg")) continue;
    for (const color of behind(element)) {
      const pair = [luminance(getComputedStyle(element).color), luminance(color)];
      worst.push([(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), text.data.trim()]);
    }
  }
  return worst.sort((a, b) => a[0] - b[0]);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["winner", "on-test"])
def test_text_stands_out_in_light_and_in_dark(visit, name, scheme):
    opened = visit(name, scheme=scheme)
    pairs = opened.evaluate(CONTRAST)
    assert len(pairs) > 300
    assert pairs[0][0] >= 4.5, pairs[0]
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_a_winner_is_told_by_more_than_its_colour(visit):
    opened = visit("winner")
    rows = opened.locator("#table tbody tr")
    (row,) = [row for row in rows.all() if "★" in row.inner_text()]
    weight = "cell => getComputedStyle(cell).fontWeight"
    assert row.locator("td").first.evaluate(weight) == "700"
    assert rows.last.locator("td").first.evaluate(weight) == "400"


def test_headings_come_in_order_and_tables_have_headers_and_captions(visit):
    opened = visit("winner")
    levels = opened.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))"
    )
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert opened.evaluate("document.documentElement.lang") == "en"
    assert opened.locator("table").count() == opened.locator("table > caption").count() == 5
    assert opened.locator("th:not([scope])").count() == 0


def test_what_scrolls_can_be_reached_by_keyboard(visit):
    stuck = visit("winner", 375).evaluate(
        "[...document.querySelectorAll('body *')].filter(e => e.scrollWidth > e.clientWidth + 1 "
        "&& getComputedStyle(e).overflowX === 'auto' && e.tabIndex < 0).length"
    )
    assert stuck == 0


def test_a_dangerous_name_is_shown_and_does_nothing(visit):
    opened = visit("dangerous")
    assert opened.title() != "owned"
    assert opened.locator("dd", has_text=DANGEROUS).first.is_visible()
    assert opened.locator("script").count() == 0


def test_print_is_dark_on_white_and_fits_the_paper(visit):
    opened = visit("seeds", PAPER, scheme="dark", media="print")
    assert (
        opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    assert opened.evaluate(CONTRAST)[0][0] >= 4.5
    assert opened.evaluate("document.documentElement.scrollWidth") == PAPER
    assert opened.pdf(format="A4").startswith(b"%PDF")


def test_a_page_names_no_folder_of_the_machine(page, folders):
    for name in ("winner", "seeds", "dense"):
        assert str(folders[name].path.parent.resolve()) not in page(name)


def test_the_next_command_is_named(page):
    assert code_of(page("winner"), "pyg-lth export") == "pyg-lth export winner --winner"
    assert code_of(page("on-test"), "pyg-lth export") == "pyg-lth export on-test --round 1"
    assert "pyg-lth export" not in page("dense")


def test_a_dense_model_that_had_not_converged_has_a_warning(page, folders):
    assert not folders["plain"].read_report().dense_converged
    assert "DENSE HAD NOT CONVERGED" in text_of(page("plain"))


def test_groups_without_a_hit_are_folded(folders, tmp_path):
    path = shutil.copytree(folders["winner"].path, tmp_path / "missed")
    folder = RunFolder(path)
    report = folder.read_report()

    def missed(result):
        found = result.analysis
        metrics = {
            name: [0.0 if group == 2 else 0.5 for group in range(len(values))]
            for name, values in found.metrics_by_item_group.items()
        }
        analysis = found.model_copy(update={"metrics_by_item_group": metrics})
        return result.model_copy(update={"analysis": analysis})

    results = [missed(result) for result in folder.read_results()]
    folder.write_report(Report.of_seed(report.config, report.groups, report.popularity, results))
    html = to_html(folder)
    (folded,) = re.findall("<details>.*?</details>", html[html.index("<h3>Items") :], re.DOTALL)
    assert "1 of 10 groups without a hit, of dense or of the ticket: 3" in folded
    assert re.findall('<th scope="row">(\\d+)', folded) == ["3"]
