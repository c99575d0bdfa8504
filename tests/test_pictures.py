"""The pictures of README and of the documentation's first page are drawn by the code at hand."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"


def test_the_pictures_are_of_the_code_at_hand():
    spec = importlib.util.spec_from_file_location("make_pictures", ROOT / "docs/make_pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = json.loads((PICTURES / "made.json").read_text())
    assert made == {"drawn_by": module.digest()}, "draw them again: make pictures"


def test_the_pictures_that_are_shown_are_there_and_small():
    shown = (ROOT / "README.md").read_text() + (ROOT / "docs" / "index.md").read_text()
    for name in ("live.svg", "metric.svg", "page.png"):
        assert f"pictures/{name}" in shown
        assert 1_000 < (PICTURES / name).stat().st_size < 300_000
