"""A stream is consumed in one Meltano environment and replayed in another. Neither disturbs the other."""

import functools

import pytest

from rows import assert_loaded, read_lines
from sandbox import Sandbox
from test_meltano import project

assert project  # a fixture


@pytest.fixture
def load(project, tmp_path):
    """Runs the tap into target-jsonl, in an environment with a place for rows of its own."""

    def load(sandbox, environment, *options, **variables):
        place = tmp_path / environment
        place.mkdir(exist_ok=True)
        words = ["run", *options, f"--state-id-suffix={tmp_path.name}", "tap-streamduo", "target-jsonl"]
        variables = {"TARGET_JSONL_DESTINATION_PATH": place} | variables
        project.run(f"--environment={environment}", *words, sandbox=sandbox, **variables)
        return read_lines(place / "records.jsonl")

    return load


def test_one_environment_consumes_and_another_replays(load):
    sandbox = Sandbox(310)
    consume, replay = (functools.partial(load, sandbox, environment) for environment in ["prod", "replay"])
    assert_loaded(consume(), sandbox.records())
    assert_loaded(replay(), sandbox.records())
    assert sandbox.unread() == 310
    sandbox.write(f'{{"new": {number}}}' for number in range(20))
    # The second run marks what the first one has loaded, which the replay does not notice.
    assert_loaded(consume(), sandbox.records())
    assert sandbox.unread() == 20
    rows = replay()
    # Those of the first run were unread then.
    assert_loaded([row | {"readStatus": "false"} for row in rows], sandbox.records())
    assert sandbox.unread() == 20
    # Nothing new: neither loads anything again.
    assert_loaded(consume(), sandbox.records())
    assert len(replay()) == 330
    assert sandbox.unread() == 0


def test_a_full_refresh_replays_from_the_start(load):
    sandbox = Sandbox(130)
    assert len(load(sandbox, "replay")) == 130
    assert len(load(sandbox, "replay", "--full-refresh")) == 260
    start = sandbox.records()[99]["recordTimeStampISO"]
    assert len(load(sandbox, "replay", "--full-refresh", TAP_STREAMDUO_STARTTIMESTAMP=start)) == 290
    assert sandbox.unread() == 130
