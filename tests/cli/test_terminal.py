import os
import re
import sys

import pexpect
import pyte
import pytest

from pyg_lth.results.text import COLUMNS

PROGRAM = ["-c", "from pyg_lth.cli import main; main()"]
ARGUMENTS = ["prune", "--model", "mf", "--rounds", "3", "--max-epochs", "60", "--out", "kept"]


@pytest.mark.parametrize(
    ("width", "height", "left_out"),
    [
        (80, 40, ("remaining", "p", "to dense", "seconds")),
        (50, 40, ("remaining", "p", "to dense", "seconds", "ndcg", "95% interval")),
        (200, 50, ()),
    ],
)
def test_live_table_and_report_fit_the_terminal(tmp_path, width, height, left_out):
    screen = pyte.Screen(width, height)
    stream = pyte.ByteStream(screen)
    child = pexpect.spawn(
        sys.executable,
        [*PROGRAM, *ARGUMENTS],
        cwd=tmp_path,
        dimensions=(height, width),
        timeout=120,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "OMP_NUM_THREADS": "1"},
    )
    seen = []
    while True:
        try:
            stream.feed(child.read_nonblocking(1 << 16, timeout=120))
        except pexpect.EOF:
            break
        seen.append([line.rstrip() for line in screen.display])
    child.close()
    assert child.exitstatus == 0

    running = [lines for lines in seen if any("steps" in line for line in lines)]
    assert running
    live = (
        "round density epoch loss recall ndcg time"
        if width > 50
        else ("round density epoch recall ndcg")
    )
    header = re.compile(" *" + live.replace(" ", " +") + "$")
    assert all(any(header.match(line) for line in lines) for lines in running)
    last = "\n".join(running[-1])
    assert re.search(r"popular +0\.\d{4} +0\.\d{4}", last)
    assert re.search(r"3/3 +72\.90%", last)
    assert re.search(r"(about|at most) \d+:\d\d left", last)

    final = [line.rstrip() for line in screen.display]
    names = " ".join(name for name in COLUMNS if name not in left_out)
    assert names in {" ".join(line.split()) for line in final}
    # Words of the small print may begin a line too, but no density follows them.
    rows = [re.match(r" *(dense|1|2|3) +[\d.]+%", line) for line in final]
    assert sum(row is not None for row in rows) == 4
    assert not any("steps" in line for line in final), "the live table was not taken away"
    assert not any("Traceback" in line for lines in seen for line in lines)
