"""target-jsonl loads every record."""

import pytest

from processes import run
from rows import OBJECTS, SCALARS, assert_loaded, at_instants, read_lines
from sandbox import Sandbox, run_tap


@pytest.fixture
def load(jsonl_programs, tmp_path):
    """Loads the tap's output and returns all rows loaded so far."""

    def load(output):
        # With its default settings it writes files into the folder in which it runs.
        run([jsonl_programs / "target-jsonl"], input=output, cwd=tmp_path)
        return [row for path in tmp_path.glob("records-*.jsonl") for row in read_lines(path)]

    return load


def test_default_settings(load, tmp_path):
    sandbox = Sandbox(1200)
    sandbox.write(OBJECTS + SCALARS)
    assert_loaded(load(run_tap(sandbox, tmp_path)), sandbox.records())
    sandbox.write(OBJECTS)
    assert_loaded(load(run_tap(sandbox, tmp_path)), sandbox.records())
    assert sandbox.unread() == 0


def test_timestamp_format_rfc3339(load, tmp_path):
    sandbox = Sandbox(250)
    rows = load(run_tap(sandbox, tmp_path, timestampFormat="rfc3339"))
    for stamp in (row["recordTimeStampISO"] for row in rows):
        assert stamp.endswith("Z") and "[" not in stamp
    assert_loaded(at_instants(rows), at_instants(sandbox.records()))
