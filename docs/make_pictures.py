"""Draw what README and the first page of the documentation show: ``make pictures``.

A search on the embedded data set is run, its live table taken in the middle of it, its figure
drawn, and its page photographed in a browser. ``made.json`` keeps a digest of the code that draws.
"""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

import pyg_lth
from pyg_lth.datasets import Synthetic
from pyg_lth.reporting.live import LiveProgress
from pyg_lth.reporting.page import to_html
from pyg_lth.reporting.plots import figures, render
from pyg_lth.results.run_folder import RunFolder
from pyg_lth.training.progress import EpochRecord

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
COMMAND = (
    "pyg-lth prune --model mf --rounds 8 --amount 0.2 --lr 0.005 --patience 10 --tolerance 0.02"
)
# In the middle of this round the live table is taken.
SHOWN = 6
# What the pictures show is drawn by these.
DRAWN_BY = (
    *("reporting/live.py", "reporting/page.html.jinja", "reporting/page.py", "reporting/plots.py"),
    *("results/report.py", "results/text.py"),
)


def digest() -> str:
    """Of the code that draws, so that a test can tell pictures of older code."""
    content = b"".join((ROOT / "pyg_lth" / name).read_bytes() for name in DRAWN_BY)
    return hashlib.sha256(content).hexdigest()


class Photograph(LiveProgress):
    """The live table, exported when the search is in the middle."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Take the picture once."""
        if record.round == SHOWN and record.epoch == 10:
            self._console.print(f"$ {COMMAND}\n", highlight=False)
            self._console.print(self.render())


def main() -> None:
    """Run the search and draw."""
    browser = next((b for b in ("chromium", "chromium-browser") if shutil.which(b)), None)
    if browser is None:
        sys.exit("the page is photographed in chromium, which is not here: make browser")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        data = Synthetic(Path(work, "data", "synthetic"))[0]
        settings = {"rounds": 8, "amount": 0.2, "lr": 0.005, "patience": 10, "tolerance": 0.02}
        config = pyg_lth.PruneConfig(model="mf", **settings)
        console = Console(record=True, file=io.StringIO(), width=96, height=40, force_terminal=True)
        run = Path(work, "runs", "mine")
        pyg_lth.find_tickets(data, config, run_dir=run, callback=Photograph(console, "runs/mine"))
        svg = console.export_svg(title="pyg-lth", unique_id="pyg-lth")
        (PICTURES / "live.svg").write_text(svg)
        figure = figures([("imp", RunFolder(run))])["metric"]
        (PICTURES / "metric.svg").write_bytes(render(figure, "svg"))
        page = Path(work, "page.html")
        page.write_text(to_html(RunFolder(run), COMMAND))
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1000,1100"]
        picture = f"--screenshot={PICTURES / 'page.png'}"
        subprocess.run([browser, *options, picture, page.as_uri()], check=True, capture_output=True)
    (PICTURES / "made.json").write_text(json.dumps({"drawn_by": digest()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
