from pathlib import Path

import pytest


@pytest.fixture
def linked(tmp_path):
    """Links the raw files of a data set that lies beside the repository into a root."""
    shared = Path(__file__).resolve().parents[2].parent / "shared" / "data"

    def link(name):
        source = shared / name / "raw"
        if not source.is_dir():
            pytest.skip(f"the raw files of {name} are not there")
        raw = tmp_path / name / "raw"
        raw.mkdir(parents=True)
        for path in source.iterdir():
            (raw / path.name).symlink_to(path)
        return raw.parent

    return link
