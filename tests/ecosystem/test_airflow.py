"""deploy/airflow/streamduo.py: its tasks load every record, a failure costs none, and only what a retry can fix is retried."""

import ast
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

from postgres import free_port
from processes import HERE, PATH, ROOT, environment, is_set, run, start
from rows import assert_loaded, identity, read_lines, write_json
from sandbox import OPENER, Sandbox

FILE = ROOT / "deploy" / "airflow" / "streamduo.py"


def streams_of_the_file():
    """STREAMS. The file cannot be imported without Airflow."""
    values = {node.targets[0].id: node.value for node in ast.parse(FILE.read_text()).body if isinstance(node, ast.Assign)}
    return ast.literal_eval(values["STREAMS"])


def test_the_page_has_the_settings_of_the_streams(page_settings):
    for settings in streams_of_the_file().values():
        assert set(settings) <= set(page_settings) - {"streamName", "clientId", "clientSecret"}


class Airflow:
    """Airflow with a database and a folder of DAGs of its own, and a sandbox with the streams of the file."""

    def __init__(self, programs, target_jsonl, folder):
        self.folder = folder
        self.programs = programs
        self.sandbox = Sandbox()
        self.streams = {name: self.sandbox.create_stream(name) for name in streams_of_the_file()}
        # What the connection's extra holds.
        self.settings = {name: self.sandbox.config[name] for name in ["apiUrl", "authUrl"]}
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.target = self.bin / "target-jsonl"
        self.target.symlink_to(target_jsonl)
        self.home = folder / "airflow"
        (self.home / "dags").mkdir(parents=True)
        self.port = free_port()
        self.airflow("db", "migrate")

    def environment(self):
        connection = {"conn_type": "generic", "extra": self.settings}
        connection |= {"login": self.sandbox.config["clientId"], "password": self.sandbox.config["clientSecret"]}
        return {name: value for name, value in environment().items() if not name.startswith("AIRFLOW")} | {
            "PATH": f"{self.bin}:{PATH}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONN_STREAMDUO": json.dumps(connection),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.home / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        }

    def airflow(self, *words, code=0, **variables):
        return run([self.programs / "airflow", *words], cwd=self.folder, env=self.environment() | variables, code=code)

    def fill(self, **counts):
        for name, count in counts.items():
            self.sandbox.write((f'{{"{name}": {number}}}' for number in range(count)), self.streams[name])

    def install(self, changes={}, target=None):
        """Puts the file into the folder of DAGs, with the sandbox's streams, this target and these changes."""
        text = FILE.read_text()
        places = {settings["streamId"]: self.streams[name] for name, settings in streams_of_the_file().items()}
        config = write_json(self.folder / "jsonl.json", {"destination_path": str(self.folder), "do_timestamp_file": False})
        target = target or ["target-jsonl", "--config", str(config)]
        places |= {'["target-jsonl", "--config", "/etc/streamduo/target-jsonl.json"]': json.dumps(target)}
        # The pause before a retry.
        places |= {"(minutes=1)": "(seconds=1)"}
        for place, change in (places | changes).items():
            assert text.count(place) == 1, place
            text = text.replace(place, change)
        (self.home / "dags" / FILE.name).write_text(text)

    def test(self, code=0, **variables):
        """Runs `airflow dags test`. Returns each task's state and the number of its tries, and the log."""
        ended = self.airflow("dags", "test", "streamduo", code=code, **variables)
        return self.tasks(), ended.stdout + ended.stderr

    def query(self, sql):
        connection = sqlite3.connect(self.home / "airflow.db", timeout=60)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def last_run(self):
        return self.query("select run_id from dag_run order by id desc limit 1")[0][0]

    def tasks(self):
        rows = self.query(f"select task_id, state, try_number from task_instance where run_id = '{self.last_run()}'")
        return {task: (state, tries) for task, state, tries in rows}

    def start(self):
        """Starts Airflow with a scheduler and an executor, and a run."""
        for name in ["api-server", "dag-processor", "scheduler"]:
            with open(self.folder / f"{name}.log", "w") as log:
                command = [self.programs / "airflow", name]
                start(command, cwd=self.folder, env=self.environment(), stdout=log, stderr=subprocess.STDOUT)
        wait_until(lambda: self.query("select * from dag"))
        self.airflow("dags", "unpause", "streamduo")
        self.airflow("dags", "trigger", "streamduo")

    def tap(self, name):
        """The process of the tap that loads a stream, or None."""
        variable = f"TAP_STREAMDUO_STREAMID={self.streams[name]}".encode()
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if variable in (process / "environ").read_bytes().split(b"\0"):
                    return int(process.name)
            except OSError:
                pass
        return None

    def mark_as_failed(self, task):
        """As somebody does it in the browser."""
        url = f"http://127.0.0.1:{self.port}"
        token = json.loads(OPENER.open(f"{url}/auth/token").read())["access_token"]
        path = f"/api/v2/dags/streamduo/dagRuns/{urllib.parse.quote(self.last_run())}/taskInstances/{task}"
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        body = json.dumps({"new_state": "failed"}).encode()
        OPENER.open(urllib.request.Request(url + path, body, headers, method="PATCH")).close()

    def assert_loaded(self, name, rows=None):
        """All records of the stream are loaded, and marked as read."""
        rows = read_lines(self.folder / f"{name}.jsonl") if rows is None else rows
        assert_loaded(rows, self.sandbox.records(self.streams[name]))
        assert self.sandbox.unread(self.streams[name]) == 0

    def assert_keeps_the_secret(self):
        """Neither the logs of the tasks nor the database hold it."""
        secret = self.sandbox.config["clientSecret"].encode()
        files = [path for path in self.home.rglob("*") if path.is_file()]
        assert files
        assert [path for path in files if secret in path.read_bytes()] == []


@pytest.fixture
def airflow(request, tmp_path):
    if not is_set("ECOSYSTEM_AIRFLOW"):
        pytest.skip("ECOSYSTEM_AIRFLOW=1 installs Airflow and runs the DAG with it")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv")
    target_jsonl = request.getfixturevalue("jsonl_programs") / "target-jsonl"
    return Airflow(request.getfixturevalue("airflow_programs"), target_jsonl, tmp_path)


def test_every_record_of_each_stream_is_loaded_and_marked(airflow):
    airflow.fill(orders=250, prices=30)
    airflow.install()
    for _ in range(2):
        tasks, log = airflow.test()
        assert tasks == {"orders": ("success", 1), "prices": ("success", 1)}
        assert airflow.sandbox.config["clientSecret"] not in log
        for name in airflow.streams:
            airflow.assert_loaded(name)
    airflow.assert_keeps_the_secret()


def test_a_target_that_crashes_once_is_retried_and_nothing_is_lost(airflow):
    airflow.fill(orders=250, prices=250)
    (airflow.bin / "real-loader").symlink_to(airflow.target.readlink())
    shutil.copy(HERE / "killed_target.py", airflow.bin)
    airflow.target.unlink()
    # killed_target.py leaves the file `killed`.
    airflow.target.write_text('#!/bin/sh\n[ -e killed ] && exec real-loader "$@"\nexec killed_target.py "$@"\n')
    airflow.target.chmod(0o755)
    airflow.install()
    tasks, _ = airflow.test(KILL="after-150-lines")
    assert sorted(tasks.values()) == [("success", 1), ("success", 2)]
    for name in airflow.streams:
        # The target does not upsert.
        airflow.assert_loaded(name, distinct(read_lines(airflow.folder / f"{name}.jsonl")))


def test_a_wrong_setting_fails_its_task_alone_and_is_not_retried(airflow):
    airflow.fill(orders=3, prices=30)
    airflow.install({'"orders": {': '"orders": {"maxPending": 0, '})
    tasks, _ = airflow.test(code=1)
    assert tasks == {"orders": ("failed", 1), "prices": ("success", 1)}
    airflow.assert_loaded("prices")
    assert airflow.sandbox.unread(airflow.streams["orders"]) == 3


def test_no_task_is_retried_where_there_is_no_tap(airflow):
    airflow.install()
    path = f"{airflow.bin}:/usr/bin:/bin"
    assert shutil.which("tap-streamduo", path=path) is None
    tasks, _ = airflow.test(code=1, PATH=path)
    assert tasks == {"orders": ("failed", 1), "prices": ("failed", 1)}


def slow_target(airflow, max_pending):
    """A target that takes a second for 100 records, and commits at the end of each window. With the file that it commits to."""
    airflow.settings["maxPending"] = max_pending
    file = airflow.folder / "committed"
    return ["streamduo-sandbox", "target", "--every", "0", "--pause-ms", "10", "--out", str(file)], file


def test_after_a_time_out_what_is_committed_is_marked_and_the_retry_loads_the_rest(airflow):
    airflow.fill(orders=1000)
    target, file = slow_target(airflow, max_pending=600)
    airflow.install({"(hours=1)": "(seconds=2)"}, target)
    tasks, log = airflow.test()
    state, tries = tasks["orders"]
    assert (state, tries > 1) == ("success", True)
    assert "stopped by SIGTERM: all that was written is committed and marked as read" in log
    # Each record once. The first window takes longer than the time-out and the pause, so the retry has waited for its end.
    airflow.assert_loaded("orders", read_lines(file))


def test_a_tap_ends_with_its_task_whoever_ends_that(airflow):
    """With a scheduler and an executor. One task is marked as failed in the browser, the other one is killed and retried."""
    airflow.fill(orders=3000, prices=1500)
    target, file = slow_target(airflow, max_pending=100)
    airflow.install({'schedule="*/10 * * * *"': "schedule=None", "(minutes=1)": "(seconds=5)"}, target)
    airflow.start()
    for name, count in {"orders": 3000, "prices": 1500}.items():
        wait_until(lambda: airflow.sandbox.unread(airflow.streams[name]) < count)

    taps = {name: airflow.tap(name) for name in airflow.streams}
    airflow.mark_as_failed("orders")
    os.kill(parent(taps["prices"]), signal.SIGKILL)
    for tap in taps.values():
        wait_until(lambda: not pathlib.Path(f"/proc/{tap}").exists())
    for name in airflow.streams:
        assert airflow.sandbox.unread(airflow.streams[name]) > 0
    marked = airflow.sandbox.marked(airflow.streams["orders"])
    assert set(map(identity, marked)) <= set(map(identity, read_lines(file)))

    wait_until(lambda: airflow.tasks()["prices"][0] in ("success", "failed"))
    assert airflow.tasks() == {"orders": ("failed", 1), "prices": ("success", 2)}
    airflow.assert_loaded("prices", distinct(row for row in read_lines(file) if "prices" in row["dataPayload"]))


def parent(process):
    return int(pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def distinct(rows):
    return list({identity(row): row for row in rows}.values())


def wait_until(is_true):
    deadline = time.monotonic() + 120
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
