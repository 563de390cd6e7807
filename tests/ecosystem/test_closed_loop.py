"""The tap runs real targets: `tap-streamduo -c config.json -- TARGET`. What is marked as read is loaded, and every row is compared."""

import os
import shutil
import signal
import time

import pytest

from processes import HERE, TAP, TIMEOUT, environment, run, start
from rows import OBJECTS, SCALARS, assert_loaded, identity, read_lines, write_json
from sandbox import Sandbox

# The windows are small, so a stream needs several of them.
MAX_PENDING = 300


class Loader:
    def __init__(self, command, rows, acknowledges_early=False, upserts=True, payloads=OBJECTS + SCALARS):
        self.command = command
        self.rows = rows
        # Whether it prints a STATE before its input ends.
        self.acknowledges_early = acknowledges_early
        self.upserts = upserts
        self.payloads = payloads

    def loaded(self):
        """The rows, each once where the target does not upsert."""
        rows = self.rows()
        return rows if self.upserts else list({identity(row): row for row in rows}.values())


@pytest.fixture
def new_duckdb_loader(duckdb_programs, read_duckdb, tmp_path):
    def new(**settings):
        database = tmp_path / "records.duckdb"
        settings = {"filepath": str(database), "default_target_schema": "main"} | settings
        config = write_json(tmp_path / "duckdb.json", settings)
        command = [duckdb_programs / "target-duckdb", "--config", config]
        # It takes no bare strings and booleans: see test_duckdb.py.
        return Loader(command, lambda: read_duckdb(database)[0], "batch_size_rows" in settings, payloads=OBJECTS)

    return new


@pytest.fixture(params=["target-jsonl", "target-duckdb", "target-duckdb-in-small-batches", "target-postgres"])
def loader(request, tmp_path):
    match request.param:
        case "target-jsonl":
            config = write_json(tmp_path / "jsonl.json", {"destination_path": str(tmp_path), "do_timestamp_file": False})
            command = [request.getfixturevalue("jsonl_programs") / "target-jsonl", "--config", config]
            return Loader(command, lambda: read_lines(tmp_path / "records.jsonl"), upserts=False)
        case "target-duckdb":
            return request.getfixturevalue("new_duckdb_loader")()
        case "target-duckdb-in-small-batches":
            # No multiple of a batch ends at the end of a window: see the check below.
            return request.getfixturevalue("new_duckdb_loader")(batch_size_rows=97)
        case "target-postgres":
            table = request.getfixturevalue("new_table")(f"loop_{tmp_path.name}".lower())
            return Loader(table.target, table.rows)


def tap_with(sandbox, folder, target, *options, **settings):
    """The command that runs the tap with a target."""
    config = write_json(folder / "config.json", sandbox.config | {"maxPending": MAX_PENDING} | settings)
    return [TAP, "--config", config, *options, "--", *target]


def assert_what_is_marked_is_loaded(sandbox, loader):
    """Returns the number of marked records."""
    marked = set(map(identity, sandbox.marked()))
    if marked:
        assert marked - set(map(identity, loader.rows())) == set()
    return len(marked)


def test_all_is_loaded_and_marked_in_the_same_run(loader, tmp_path):
    sandbox = Sandbox(1200)
    sandbox.write(loader.payloads)
    ended = run(tap_with(sandbox, tmp_path, loader.command), cwd=tmp_path)
    assert ended.stdout == ""
    assert sandbox.unread() == 0
    assert_loaded(loader.rows(), sandbox.records())
    if not loader.acknowledges_early:
        assert ended.stderr.count(" is started\n") == 5

    sandbox.write(loader.payloads)
    run(tap_with(sandbox, tmp_path, loader.command), cwd=tmp_path)
    assert sandbox.unread() == 0
    assert_loaded(loader.rows(), sandbox.records())


def test_a_stop_while_following_marks_what_is_loaded(loader, tmp_path):
    sandbox = Sandbox(250)
    log = tmp_path / "log"
    with open(log, "w") as stderr:
        command = tap_with(sandbox, tmp_path, loader.command, "--follow", pollIntervalSeconds=0)
        tap = start(command, cwd=tmp_path, stderr=stderr)
    wait_until(lambda: sandbox.unread() == 0)
    batches = log.read_text().count(" is started\n")
    sandbox.write(f'{{"new": {number}}}' for number in range(30))
    wait_until(lambda: log.read_text().count(" is started\n") > batches)
    # To the tap alone, like systemd with KillMode=mixed and Kubernetes.
    os.kill(tap.pid, signal.SIGTERM)
    assert tap.wait(TIMEOUT) == 128 + signal.SIGTERM, log.read_text()
    assert len(sandbox.marked()) > 250
    assert_loaded(loader.rows(), sandbox.marked())


@pytest.mark.parametrize("kill", ["after-150-lines", "after-a-state"])
def test_a_killed_target_marks_what_is_loaded(loader, tmp_path, kill):
    sandbox = Sandbox(730)
    killed = tmp_path / "killed_target.py"
    shutil.copy(HERE / killed.name, killed)
    (tmp_path / "real-loader").symlink_to(loader.command[0])
    command = tap_with(sandbox, tmp_path, [killed, *loader.command[1:]])
    ended = run(command, cwd=tmp_path, code=3, env=environment(KILL=kill))
    assert "signal: 9 (SIGKILL)" in ended.stderr
    marked = assert_what_is_marked_is_loaded(sandbox, loader)
    assert (marked > 0) == (kill == "after-a-state")

    run(tap_with(sandbox, tmp_path, loader.command), cwd=tmp_path)
    assert sandbox.unread() == 0
    assert_loaded(loader.loaded(), sandbox.records())


def test_target_duckdb_holds_back_a_state_that_comes_right_after_a_batch(new_duckdb_loader, tmp_path):
    """The tap starts it once more, with the last batch. With the target's exit as the proof it need not."""
    sandbox = Sandbox(1000)
    loader = new_duckdb_loader(batch_size_rows=50)
    # One window, so that all records are right before the last STATE.
    ended = run(tap_with(sandbox, tmp_path, loader.command, maxPending=1000), cwd=tmp_path)
    assert ended.stderr.count("loading those again") == 1
    assert ended.stderr.count("target-duckdb is started") == 2
    assert sandbox.unread() == 0
    assert_loaded(loader.rows(), sandbox.records())


def test_target_duckdb_is_not_tried_again_if_its_exit_is_the_proof(new_duckdb_loader, tmp_path):
    sandbox = Sandbox(1000)
    loader = new_duckdb_loader(batch_size_rows=50)
    ended = run(tap_with(sandbox, tmp_path, loader.command, targetProof="exit"), cwd=tmp_path)
    assert "trying again" not in ended.stderr
    assert sandbox.unread() == 0
    assert_loaded(loader.rows(), sandbox.records())


def wait_until(is_true):
    deadline = time.monotonic() + 120
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
