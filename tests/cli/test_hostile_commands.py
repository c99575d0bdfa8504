"""Whatever a command line or a file of settings says, it ends in exit code 0 or 2, untraced."""

import itertools
import json
import random
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyg_lth.cli.settings import PruneSettings
from pyg_lth.errors import InputError

DRY = ["prune", "--model", "mf", "--max-epochs", "1", "--dry-run", "--json"]
VALUES = [
    *("", " ", "-1", "0", "1", "0.5", "1e999", "nan", "-0", str(10**30), "1" * 5000, "0x10", "1_0"),
    *("\x1b[31m", "[/b]", "é\udcff", "null", "[]", "{}", "true", "..", "/dev/null", "a/b/c", "--"),
    *("recall@20", "ndcg@7", "a\nb", "%s", "${HOME}", "synthetic", "lightgcn", "~", "🎟", "x" * 300),
]
OF_SETTINGS = [
    [*DRY, f"--{name.replace('_', '-')}={value}"]
    for name, value in itertools.product(PruneSettings.model_fields, VALUES)
]
NUMBERS = ["-1", "0", "1.5", "nan", "", str(10**30), "x"]
OTHERS = [
    *(["prune", option, "run", *more] for option in ("--resume", "--out") for more in
      ([], ["--seed", "1"], ["--preset", "paper"], ["--dataset", "absent.csv"], ["--core", "3"])),
    *(["prune", "--config", path] for path in ("run", "run/config.json", "a.ticket", "")),
    *(["prune", option, path, "--dry-run"] for option in ("--resume", "--out", "--mask-from")
      for path in ("", "run", "run/round-000", "a.ticket", "absent", "\x1b", "/dev/null")),
    *([command, path] for command in ("report", "compare", "plot", "export", "inspect")
      for path in ("run", "empty", "a.ticket", "absent", "", "run/round-000", "\udcff")),
    *(["export", "run", option, value, "--out", "b"] for option in
      ("--round", "--seed", "--density", "--bytes") for value in NUMBERS),
    *(["export", "run", "--round", "1", "--format", kind, "--out", out] for kind in
      ("ticket", "npz", "hf", "pickle") for out in ("", "empty", "absent/b", "/dev/null/b", "b")),
    *(["export", "run", "--round", "1", "--out", "c", "--values", v, "--form", f] for v in
      ("float16", "int4", "int1") for f in ("bitmap", "counts", "dense", "first-columns", "x")),
    *(["recommend", "a.ticket", "--user", "0", "-k", value] for value in [*NUMBERS, "99999"]),
    *(["recommend", "a.ticket", option, value] for option in
      ("--user", "--history", "--history-file", "--similar-to", "--exclude", "--format", "--out")
      for value in ("", "0", "\x1b", "\udcff", "run", "a.ticket", "absent", "lines", str(10**30))),
    *(["recommend", path, "--all"] for path in ("run/config.json", "run", "", "lines")),
    *(["runs", command, path] for command in ("list", "check", "clean")
      for path in ("run", "empty", "a.ticket", "absent", "", ".")),
    *(["datasets", command, *path] for command in ("info", "prepare", "convert")
      for path in ([""], ["."], ["run"], ["absent"], ["a.ticket"], ["lines"], ["lines", "out.txt"],
                   ["lines", "run"], ["synthetic", "out"], ["synthetic", ""], ["/dev/null", "b"])),
    *(["sweep", "grid.yaml", option, value] for option in ("--jobs", "--shard")
      for value in [*NUMBERS, "0/0", "2/1", "1/x", "1/999999"]),
    *(["sweep", path, *more] for path in ("run", "a.ticket", "lines", "absent", "")
      for more in ([], ["--list"], ["--slurm"])),
    *(["tune", option, value] for option in ("--trials", "--out", "--over", "--dim")
      for value in ["-1", "0.5", "", "run", "absent/b", "x"]),
    *(["serve", path, *more] for path in ("absent", "run", "lines", "")
      for more in ([], ["--port", "-1"], ["--workers", "0"])),
    *(["doctor", "--root", path] for path in ("", "a.ticket", "\udcff", "/proc/1", "run")),
    *([word] for word in ("", "-", "--", "prun", "\x1b[31m", "--version", "-h", "--json", "🎟")),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, a ticket, and files that are neither, deep enough that .. leads nowhere of worth."""
    import pyg_lth
    from pyg_lth.datasets import Synthetic
    from pyg_lth.tickets.building import build_ticket

    place = tmp_path_factory.mktemp("hostile") / "a" / "b"
    place.mkdir(parents=True)
    data = Synthetic(place / "data" / "synthetic", 60, 40, 600)[0]
    config = pyg_lth.PruneConfig(model="mf", dim=4, max_epochs=1, rounds=1)
    pyg_lth.find_tickets(data, config, run_dir=place / "run")
    build_ticket(place / "run", round=1, data=data).save(place / "a.ticket")
    (place / "empty").mkdir()
    (place / "lines").write_text("a,b\n\x1b,2\n,\n")
    (place / "grid.yaml").write_text("out: runs\ngrid: {dim: [0]}\n")
    return place


@pytest.fixture
def end(run, folder, monkeypatch):
    """Run a command line where the run is, and hold it to how it must end."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("pyg_lth.estimate.SECONDS", 0.0)

    def begin(*args, **kwargs):
        raise InputError("a study would take too long here")

    monkeypatch.setattr("pyg_lth.tuning.tune", begin)

    def end(arguments):
        code, out, err = run(*arguments)
        assert code in (0, 2), (arguments, code, err)
        assert "Traceback" not in out + err and "sorry" not in err, (arguments, err)
        assert "\x1b" not in err, arguments
        assert code == 0 or err.splitlines()[-1].startswith("Error: "), (arguments, err)
        return code

    return end


def test_some_hostile_settings(end):
    codes = [end(case) for case in random.Random(0).sample(OF_SETTINGS, 60)]
    assert set(codes) == {0, 2}


@pytest.mark.torture
def test_every_hostile_setting(end):
    assert len(OF_SETTINGS) > 1000
    for case in OF_SETTINGS:
        end(case)


def test_some_hostile_command_lines(end):
    for case in random.Random(0).sample(OTHERS, 60):
        end(case)


@pytest.mark.torture
def test_every_hostile_command_line(end):
    assert len(OTHERS) > 250
    for case in OTHERS:
        end(case)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANYTHING = st.recursive(
    SCALARS | st.sampled_from(VALUES),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(list(PruneSettings.model_fields)) | st.text(max_size=6)
FILES = st.one_of(
    st.dictionaries(NAMES, ANYTHING, max_size=4).map(lambda found: json.dumps(found).encode()),
    st.dictionaries(NAMES, SCALARS, max_size=4).map(
        lambda found: yaml.safe_dump(found).encode("utf-8", "surrogatepass")
    ),
    ANYTHING.map(lambda found: json.dumps(found).encode()),
    st.text(alphabet=":-[]{}&*!|>'\"%@`,#? \n\tabc1.\x00\x85", max_size=60).map(str.encode),
    st.binary(max_size=40),
)  # fmt: skip


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=FILES)
def test_a_file_of_settings_is_read_or_refused_in_one_line(end, content):
    Path("settings").write_bytes(content)
    end(["prune", "--config", "settings", "--print-config"])
    end(["sweep", "settings", "--list"])


@pytest.mark.torture
@settings(
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=FILES)
def test_thousands_of_files_of_settings(end, content):
    Path("settings").write_bytes(content)
    end(["prune", "--config", "settings", "--dry-run"])
    end(["sweep", "settings", "--list"])
