import random

import pytest

from pyg_lth.datasets import DatasetError, Kwai, TikTok

TIKTOK, KWAI = "final_track2_train.txt", "train_interaction.txt"


def tiktok_log(users=30, items=20, seed=0):
    rng = random.Random(seed)
    return [
        [
            *(user * 1000, rng.randrange(-1, 300), item + 7, rng.randrange(50), -1, 0),
            *(int(rng.random() < 0.4), int(rng.random() < 0.1), -1, 5, 53_000_000 + user + item, 9),
        ]
        for user in range(users)
        for item in rng.sample(range(items), 12)
        for _ in range(1 + (rng.random() < 0.1))
    ]


def kwai_log():
    return [[row[0], row[2], row[6], row[7], 0, row[10], 3, row[11]] for row in tiktok_log(seed=1)]


def put(root, name, rows, delimiter="\t"):
    (root / "raw").mkdir(parents=True, exist_ok=True)
    text = "".join(delimiter.join(map(str, row)) + "\n" for row in rows)
    (root / "raw" / name).write_text(text)


def pairs(dataset):
    """All interactions in original ids."""
    found = set()
    for key, index in dataset[0]["user", "rates", "item"].items():
        assert key in ("edge_index", "val_edge_label_index", "edge_label_index")
        users, items = index.numpy()
        found |= set(
            zip(dataset.user_ids[users].tolist(), dataset.item_ids[items].tolist(), strict=True)
        )
    return found


def test_tiktok_actions_and_window(tmp_path):
    rows = tiktok_log()
    put(tmp_path, TIKTOK, rows)
    assert pairs(TikTok(tmp_path)) == {(r[0], r[2]) for r in rows if r[6] or r[7]}
    assert pairs(TikTok(tmp_path, positive="finish")) == {(r[0], r[2]) for r in rows if r[6]}
    windowed = TikTok(tmp_path, start_time=53_000_010, end_time=53_000_020)
    assert pairs(windowed) == {
        (r[0], r[2]) for r in rows if (r[6] or r[7]) and 53_000_010 <= r[10] < 53_000_020
    }
    assert len(list((tmp_path / "processed").glob("data-*"))) == 3


def test_kwai_core_split_and_ids(tmp_path):
    rows = kwai_log()
    put(tmp_path, KWAI, rows)
    dataset = Kwai(tmp_path)
    assert pairs(dataset) == {(r[0], r[1]) for r in rows if r[2]}
    assert dataset.user_ids.tolist() == sorted({r[0] for r in rows if r[2]})
    assert (tmp_path / "processed").joinpath(dataset.processed_file_names[1]).exists()
    other = Kwai(tmp_path, split_seed=1)
    assert pairs(other) == pairs(dataset)
    name = ("user", "rates", "item")
    assert not other[0][name].edge_index.equal(dataset[0][name].edge_index)
    cored = Kwai(tmp_path, core=4)
    assert pairs(cored) < pairs(dataset)
    for side in (0, 1):
        sizes = [sum(pair[side] == node for pair in pairs(cored)) for node in cored.user_ids]
        assert side or min(sizes) >= 4


def test_spaces_instead_of_tabs(tmp_path):
    put(tmp_path / "tabs", KWAI, kwai_log())
    put(tmp_path / "spaces", KWAI, kwai_log(), delimiter=" ")
    assert pairs(Kwai(tmp_path / "tabs")) == pairs(Kwai(tmp_path / "spaces"))


def test_a_new_log_is_read_anew(tmp_path):
    put(tmp_path, KWAI, kwai_log())
    before = pairs(Kwai(tmp_path))
    put(tmp_path, KWAI, kwai_log()[:200])
    assert pairs(Kwai(tmp_path)) < before


def test_given_split(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "train.txt").write_text("0 0 1\n1 1\n")
    (raw / "test.txt").write_text("0 3\n")
    dataset = TikTok(tmp_path)
    assert dataset.counts == (2, 4, 3, 0, 1) and dataset.item_ids.tolist() == [0, 1, 2, 3]
    (raw / "valid.txt").write_text("1 0\n")
    assert TikTok(tmp_path).counts == (2, 4, 3, 1, 1)
    with pytest.raises(DatasetError, match=r"`core` applies to the log.*leave it out"):
        TikTok(tmp_path, core=2)
    put(tmp_path, TIKTOK, tiktok_log())
    assert TikTok(tmp_path).counts.users == 30


@pytest.mark.parametrize(
    ("cls", "name", "url"), [(TikTok, TIKTOK, "biendata"), (Kwai, KWAI, "kuaishou.com")]
)
def test_missing_log(tmp_path, cls, name, url):
    with pytest.raises(DatasetError) as caught:
        cls(tmp_path)
    assert f"{tmp_path}/raw/{name}: missing" in str(caught.value)
    assert "ask for it at https://www." in str(caught.value) and url in str(caught.value)


def test_unknown_action(tmp_path):
    with pytest.raises(DatasetError, match="'share'; positive is one of click, like, follow"):
        Kwai(tmp_path, positive="share")


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (3, 2, "2", "line 4: click is 2; it has to be 0 or 1"),
        (3, 2, "yes", "line 4: column 'click' holds no number"),
        (0, 0, "", "line 1: empty id in column 'user_id'"),
        (5, 1, "photo", "line 6: id 'photo' in column 'photo_id' is text among integers"),
        (2, 7, "1\t2", "line 3: 9 fields where 8 are expected"),
    ],
)
def test_bad_rows(tmp_path, row, column, value, message):
    rows = kwai_log()
    rows[row][column] = value
    put(tmp_path, KWAI, rows)
    with pytest.raises(DatasetError) as caught:
        Kwai(tmp_path)
    assert f"{tmp_path}/raw/{KWAI}, {message}" in str(caught.value)


def test_nothing_left(tmp_path):
    put(tmp_path, KWAI, kwai_log())
    for options in ({"core": 99}, {"positive": "follow"}, {"start_time": 99_000_000}):
        with pytest.raises(DatasetError, match="no interactions are left; choose another"):
            Kwai(tmp_path, **options)
