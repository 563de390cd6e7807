"""Meltano runs the tap with the meltano.yml of the repository."""

import contextlib
import functools
import json
import re
import shutil

import pytest

from pages import blocks, run_block
from processes import HERE, PATH, RELEASE_BUILD, ROOT, environment, run
from rows import assert_loaded, read_lines
from sandbox import Sandbox

SEVERAL_STREAMS = "deploy/meltano/several-streams.meltano.yml"


# Meltano installs the loaders itself. Their fixtures only skip the checks where pip cannot install them.
@pytest.fixture(scope="session")
def project(meltano_programs, jsonl_programs, duckdb_programs, tmp_path_factory):
    """One project for all checks: the repository's meltano.yml, unchanged, and the streams of deploy/. Each check has its own
    state and its own place for rows."""
    return Project(meltano_programs / "meltano", tmp_path_factory.mktemp("project"))


class Project:
    def __init__(self, meltano, root):
        self.meltano = meltano
        self.root = root
        text = (ROOT / "meltano.yml").read_text(encoding="utf-8")
        (root / "meltano.yml").write_text(f"{text}include_paths:\n- {SEVERAL_STREAMS}\n", encoding="utf-8")
        (root / SEVERAL_STREAMS).parent.mkdir(parents=True)
        shutil.copy(ROOT / SEVERAL_STREAMS, root / SEVERAL_STREAMS)
        self.run("install", "--clean")

    def run(self, *words, sandbox=None, code=0, **variables):
        """Runs Meltano with the sandbox's settings and these variables in the environment."""
        variables = (sandbox.variables if sandbox else {}) | variables
        env = environment(PATH=PATH, MELTANO_CLI_LOG_COLORS="false", NO_COLOR="1", **variables)
        return run([self.meltano, *words], cwd=self.root, env=env, code=code)

    def run_block(self, block, sandbox, **variables):
        """Runs a block of a page. Its settings win over those that the block writes to .env."""
        env = environment(PATH=f"{self.meltano.parent}:{PATH}", NO_COLOR="1", **(sandbox.variables | variables))
        try:
            run_block(block, cwd=self.root, env=env)
        finally:
            (self.root / ".env").unlink(missing_ok=True)


@pytest.fixture
def load(project, tmp_path):
    """Runs the tap into a loader, with a state and a place for rows of this check alone."""

    def load(sandbox, loader, *options, code=0, **variables):
        settings = {
            "TARGET_JSONL_DESTINATION_PATH": tmp_path,
            "TARGET_DUCKDB_FILEPATH": tmp_path / "records.duckdb",
            "TARGET_DUCKDB_BATCH_SIZE_ROWS": 100,
        }
        words = [*options, "run", f"--state-id-suffix={tmp_path.name}", "tap-streamduo", loader]
        return project.run(*words, sandbox=sandbox, code=code, **(settings | variables))

    return load


@pytest.fixture
def loaded(read_duckdb, tmp_path):
    """The rows that a loader has loaded."""
    return {
        "target-jsonl": lambda: read_lines(tmp_path / "records.jsonl"),
        "target-duckdb": lambda: read_duckdb(tmp_path / "records.duckdb")[0],
    }


def test_config_test_marks_nothing(project):
    sandbox = Sandbox(250)
    ended = project.run("config", "test", "tap-streamduo", sandbox=sandbox)
    assert "is valid" in ended.stdout + ended.stderr
    assert sandbox.unread() == 250
    ended = project.run("config", "test", "tap-streamduo", sandbox=sandbox, code=None, TAP_STREAMDUO_CLIENTSECRET="wrong")
    assert ended.returncode != 0


def test_select_lists_every_field(project):
    sandbox = Sandbox(3)
    listed = project.run("select", "tap-streamduo", "--list", "--all", sandbox=sandbox).stdout
    found = {field: status for status, field in re.findall(r"\[(\w+)\s*\] records\.(\S+)", listed)}
    assert found == {
        "recordId": "automatic",
        "recordTimeStampISO": "automatic",
        "streamId": "selected",
        "readStatus": "selected",
        "dataPayload": "selected",
    }
    assert sandbox.unread() == 3


def test_a_deselected_field_is_not_loaded(load, loaded):
    sandbox = Sandbox(120)
    load(sandbox, "target-jsonl", TAP_STREAMDUO__SELECT='["*.*", "!*.readStatus", "!*.streamId"]')
    written = sandbox.records()
    for record in written:
        del record["readStatus"], record["streamId"]
    assert_loaded(loaded["target-jsonl"](), written)


@pytest.mark.parametrize("loader", ["target-jsonl", "target-duckdb"])
def test_each_run_loads_new_records_and_marks_those_of_the_run_before(load, loaded, loader):
    # No multiple of a batch: target-duckdb holds back a STATE that comes after its last batch.
    sandbox = Sandbox(310)
    load(sandbox, loader)
    assert_loaded(loaded[loader](), sandbox.records())
    assert sandbox.unread() == 310
    sandbox.write(f'{{"new": {number}}}' for number in range(20))
    load(sandbox, loader)
    assert_loaded(loaded[loader](), sandbox.records())
    assert sandbox.unread() == 20
    load(sandbox, loader)
    assert_loaded(loaded[loader](), sandbox.records())
    assert sandbox.unread() == 0


def test_a_backlog_takes_a_run_for_each_max_pending(load, loaded):
    sandbox = Sandbox(250)
    for unread, is_full in [(250, True), (150, True), (50, False), (0, False)]:
        ended = load(sandbox, "target-jsonl", TAP_STREAMDUO_MAXPENDING=100)
        assert sandbox.unread() == unread
        assert ("100 records are out (`maxPending`): if there are more" in ended.stdout + ended.stderr) is is_full
    assert_loaded(loaded["target-jsonl"](), sandbox.records())


def test_settings_come_from_the_env_file_and_meltano_yml_stays_as_it_is(project):
    file, text = project.root / ".env", (project.root / "meltano.yml").read_bytes()
    try:
        file.write_text("".join(f"{name}={value}\n" for name, value in Sandbox(3).variables.items()))
        project.run("config", "test", "tap-streamduo")
    finally:
        file.unlink()
    assert (project.root / "meltano.yml").read_bytes() == text


@contextlib.contextmanager
def killed_target_duckdb(project):
    """Within it, target-duckdb is killed in the middle of a load."""
    program = project.root / ".meltano/loaders/target-duckdb/venv/bin/target-duckdb"
    real = program.with_name("real-loader")
    program.rename(real)
    shutil.copy(HERE / "killed_target.py", program)
    try:
        yield
    finally:
        real.replace(program)
    # The loader leaves this file. It shows that the load has not failed for another reason.
    (project.root / "killed").unlink()


@pytest.mark.parametrize(("kill", "committed"), [("after-150-lines", 0), ("after-a-state", 100)])
def test_a_killed_loader_loses_nothing(project, load, loaded, kill, committed):
    """`committed`: the number of records in the STATE that the loader prints before it dies."""
    sandbox = Sandbox(730)
    with killed_target_duckdb(project):
        ended = load(sandbox, "target-duckdb", code=None, KILL=kill)
    assert ended.returncode != 0
    assert sandbox.unread() == 730
    load(sandbox, "target-duckdb")
    assert_loaded(loaded["target-duckdb"](), sandbox.records())
    assert sandbox.unread() == 730 - committed
    load(sandbox, "target-duckdb")
    assert_loaded(loaded["target-duckdb"](), sandbox.records())
    assert sandbox.unread() == 0


def test_log_lines_keep_their_level_and_metrics(load):
    load = functools.partial(load, Sandbox(12), "target-jsonl", "--log-format=json")
    metrics = [line["metric_info"] for line in lines_of_the_tap(load()) if "metric_info" in line]
    assert sum(metric["value"] for metric in metrics if metric["metric"] == "record_count") == 12
    lines = lines_of_the_tap(load(code=None, TAP_STREAMDUO_STREAMID="nowhere"))
    [critical] = [line["event"] for line in lines if line["level"] == "critical"]
    assert "nowhere" in critical


def lines_of_the_tap(ended):
    """The tap's log lines, as Meltano logs them."""
    lines = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("string_id") == "tap-streamduo" and line.get("stdio") == "stderr"]


def test_several_streams_side_by_side(project, tmp_path):
    sandbox = Sandbox()
    streams = {name: sandbox.create_stream(name) for name in ["orders", "prices"]}
    variables = {f"TAP_STREAMDUO_{name.upper()}_STREAMID": stream for name, stream in streams.items()}
    variables["TARGET_JSONL_DESTINATION_PATH"] = tmp_path
    for count, (name, stream) in enumerate(streams.items(), start=12):
        sandbox.write((f'{{"{name}": {number}}}' for number in range(count)), stream)
    for name, stream in streams.items():
        project.run("run", f"load-{name}", sandbox=sandbox, **variables)
        assert_loaded(read_lines(tmp_path / f"{name}.jsonl"), sandbox.records(stream))
    schedules = json.loads(project.run("schedule", "list", "--format=json").stdout)["schedules"]["job"]
    assert [schedule["name"] for schedule in schedules] == ["orders-every-ten-minutes", "prices-every-hour"]
    project.run("schedule", "run", "orders-every-ten-minutes", sandbox=sandbox, **variables)
    assert sandbox.unread(streams["orders"]) == 0
    assert sandbox.unread(streams["prices"]) == 13


@pytest.fixture
def load_in(project, tmp_path):
    """Runs the tap into target-jsonl, in an environment with a place for rows of its own."""

    def load_in(environment, sandbox, *options, **variables):
        place = tmp_path / environment
        place.mkdir(exist_ok=True)
        words = ["run", *options, f"--state-id-suffix={tmp_path.name}", "tap-streamduo", "target-jsonl"]
        variables = {"TARGET_JSONL_DESTINATION_PATH": place} | variables
        project.run(f"--environment={environment}", *words, sandbox=sandbox, **variables)
        return read_lines(place / "records.jsonl")

    return load_in


def test_one_environment_consumes_a_stream_and_another_replays_it(load_in):
    sandbox = Sandbox(310)
    assert_loaded(load_in("prod", sandbox), sandbox.records())
    assert_loaded(load_in("replay", sandbox), sandbox.records())
    assert sandbox.unread() == 310
    sandbox.write(f'{{"new": {number}}}' for number in range(20))
    # The second run marks what the first one has loaded. The replay does not notice.
    assert_loaded(load_in("prod", sandbox), sandbox.records())
    assert sandbox.unread() == 20
    assert_loaded(load_in("replay", sandbox), sandbox.records())
    assert sandbox.unread() == 20
    # Neither loads anything again.
    assert_loaded(load_in("prod", sandbox), sandbox.records())
    assert_loaded(load_in("replay", sandbox), sandbox.records())
    assert sandbox.unread() == 0


def test_a_full_refresh_replays_from_the_start(load_in):
    sandbox = Sandbox(130)
    assert len(load_in("replay", sandbox)) == 130
    assert len(load_in("replay", sandbox, "--full-refresh")) == 260
    start = sandbox.records()[99]["recordTimeStampISO"]
    assert len(load_in("replay", sandbox, "--full-refresh", TAP_STREAMDUO_STARTTIMESTAMP=start)) == 290
    assert sandbox.unread() == 130


def test_pip_url_in_place_of_executable(meltano_programs, clone):
    file = clone / "meltano.yml"
    text = file.read_text(encoding="utf-8")
    for old, new in {"    # pip_url: .\n": "    pip_url: .\n", "    executable: tap-streamduo\n": ""}.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")

    def meltano(*words, **variables):
        env = environment(CARGO_TARGET_DIR=RELEASE_BUILD, **variables)
        return run([meltano_programs / "meltano", *words], cwd=clone, env=env)

    meltano("install", "extractor", "tap-streamduo")
    assert "tap-streamduo " in meltano("invoke", "tap-streamduo", "--version").stdout
    meltano("config", "test", "tap-streamduo", **Sandbox(12).variables)


def test_the_commands_of_the_pages(project, tmp_path):
    """docs/meltano.md and docs/replay.md."""
    load, schedule = blocks("docs/meltano.md", "test_meltano.py")
    [replay] = blocks("docs/replay.md", "test_meltano.py")
    sandbox = Sandbox(12)
    for block in [load, replay]:
        project.run_block(block, sandbox, TARGET_JSONL_DESTINATION_PATH=tmp_path)
        assert_loaded(read_lines(tmp_path / "records.jsonl"), sandbox.records())
        (tmp_path / "records.jsonl").unlink()
    project.run_block(schedule, sandbox, TARGET_JSONL_DESTINATION_PATH=tmp_path, TAP_STREAMDUO_ORDERS_STREAMID=sandbox.stream)
    assert_loaded(read_lines(tmp_path / "orders.jsonl"), sandbox.records())
    assert sandbox.unread() == 0
