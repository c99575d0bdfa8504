import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from pyg_lth.datasets import (
    DATASETS,
    BipartiteDataset,
    DatasetError,
    DatasetOptions,
    InteractionFile,
    Synthetic,
    describe,
    list_datasets,
    load_dataset,
    registry,
)


def test_importing_costs_no_torch():
    script = (
        "import sys; from pyg_lth.datasets import registry, DatasetOptions\n"
        "registry.list_datasets('nowhere'); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert shown.stdout.split() == ["False", "False"], shown.stderr


def test_every_entry_leads_to_its_class():
    for name in DATASETS:
        found = registry._resolve(name)
        assert issubclass(found, BipartiteDataset) and found.name == name
        for about in ("title", "licence", "citation", "source"):
            assert getattr(found, about)


def test_every_public_name_is_there():
    import pyg_lth.datasets as package

    assert sorted(package.__all__) == sorted(package._MODULES) == sorted(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        _ = package.nothing


def test_options_are_strict():
    with pytest.raises(ValidationError):
        DatasetOptions(colour="red")
    with pytest.raises(ValidationError):
        DatasetOptions(core=-1)
    with pytest.raises(ValidationError):
        DatasetOptions(split="weekly")
    with pytest.raises(ValidationError):
        DatasetOptions().core = 3
    assert all(field.description for field in DatasetOptions.model_fields.values())


def test_name_and_path(tmp_path):
    dataset = load_dataset(DatasetOptions(root=str(tmp_path)))
    assert isinstance(dataset, Synthetic) and dataset.root == str(tmp_path / "synthetic")
    log = tmp_path / "mine.csv"
    log.write_text("user,item_id\n" + "".join(f"{u},{i}\n" for u in range(10) for i in range(10)))
    dataset = load_dataset(
        DatasetOptions(dataset=str(log), root=str(tmp_path / "data"), user_col="user", core=2)
    )
    assert isinstance(dataset, InteractionFile) and dataset.counts == (10, 10, 70, 10, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "gowala"}, "unknown data set 'gowala': did you mean gowalla? choose a file"),
        ({"dataset": "zzz"}, "unknown data set 'zzz': choose a file or one of synthetic, yelp2018"),
        ({"dataset": ""}, "unknown data set ''"),
        ({"dataset": "no/such.csv"}, "no/such.csv: no such file"),
        (
            {"core": 3},
            "option `core` does not apply to synthetic, which takes no options; leave it",
        ),
        (
            {"dataset": "kwai", "user_col": "u"},
            "option `user_col` does not apply to kwai, which takes `positive`, `start_time`, "
            "`end_time`, `core`, `split_seed`; leave it out",
        ),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(DatasetError) as caught:
        load_dataset(DatasetOptions(root=str(tmp_path), **options))
    assert str(caught.value).startswith(message)


def test_list(tmp_path):
    (tmp_path / "gowalla" / "raw").mkdir(parents=True)
    for name in ("train.txt", "test.txt"):
        (tmp_path / "gowalla" / "raw" / name).touch()
    rows = {row["name"]: row for row in list_datasets(tmp_path)}
    assert list(rows) == list(DATASETS)
    assert rows["gowalla"]["ready"] and not rows["yelp2018"]["ready"] and rows["synthetic"]["ready"]
    assert rows["gowalla"]["interactions"] == 810_128 + 217_242
    assert rows["kwai"]["availability"] == "gated"


def test_describe(tmp_path):
    about = describe(DatasetOptions(root=str(tmp_path)))
    json.dumps(about)
    assert about["ready"] and about["interactions"] == 30_000
    assert about["density"] == pytest.approx(30_000 / 800_000)
    assert list(about["user_degrees"]) == ["min", "25%", "50%", "75%", "90%", "99%", "max"]
    (file,) = about["files"]
    assert file["bytes"] > 100_000 and len(file["sha256"]) == 64


def test_describe_what_is_not_there(tmp_path):
    about = describe(DatasetOptions(dataset="yelp2018", root=str(tmp_path)))
    json.dumps(about)
    assert not about["ready"] and about["train"] == 1_237_259 and about["files"] == []
    about = describe(DatasetOptions(dataset="tiktok", root=str(tmp_path)))
    assert about["train"] is None and about["interactions"] == 746_546
    assert not list(tmp_path.iterdir())
