from pathlib import Path

import pytest

from pyg_lth import InputError
from pyg_lth.settings_file import read_settings

YAML = """\
out: runs/sizes  # a comment
settings: {dataset: no, rounds: 5, root: null}
grid:
  lr: [1e-3, 0.10]
"""
JSON = """\
{"out": "runs/sizes", "settings": {"dataset": "no", "rounds": 5, "root": null},
 "grid": {"lr": [1e-3, 0.10]}}
"""


@pytest.mark.parametrize("text", [YAML, JSON, "\ufeff" + JSON])
def test_yaml_and_json_read_alike_as_they_are_written(tmp_path, text):
    file = tmp_path / "anything"
    file.write_text(text)
    assert read_settings(file) == {
        "out": "runs/sizes",
        "settings": {"dataset": "no", "rounds": "5", "root": None},
        "grid": {"lr": ["1e-3", "0.10"]},
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"lr: 1\nlr: 2", "line 1: lr stands there twice"),
        (b'{"lr": 1, "lr": 2}', "lr stands there twice"),
        (b"lr: [1", "line 1: "),
        (b'{"lr": 1,,}', "line 1: "),
        (b"[1, 2]", "must hold"),
        (b"", "must hold"),
        (b"\xff\xfe", "neither YAML nor JSON"),
        (b'{"lr":' * 100_000, "file"),
    ],
)
def test_what_is_no_file_of_settings_is_one_line_that_names_it(tmp_path, content, words):
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        read_settings(Path(file))
    assert str(file) in str(error.value)
