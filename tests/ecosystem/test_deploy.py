"""deploy/: the scripts work as a scheduler runs them, and systemd and Kubernetes accept their files."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from processes import PATH, ROOT, TIMEOUT, environment, run, start
from rows import assert_loaded, read_lines, write_json
from sandbox import Sandbox

DEPLOY = ROOT / "deploy"


@pytest.fixture
def target(jsonl_programs, tmp_path):
    """The command of a target that loads into `tmp_path`."""
    config = write_json(tmp_path / "target.json", {"destination_path": str(tmp_path), "do_timestamp_file": False})
    return [jsonl_programs / "target-jsonl", "--config", config]


def loaded(folder):
    file = folder / "records.jsonl"
    return read_lines(file) if file.exists() else []


def test_load_sh_loads_once_and_marks_in_the_next_run(target, tmp_path):
    def load(config, *target, **options):
        run([DEPLOY / "load.sh", config, tmp_path, *target], **({"env": environment(PATH=PATH), "cwd": tmp_path} | options))

    sandbox = Sandbox(250)
    write_json(tmp_path / "config.json", sandbox.config)
    load("config.json", *target)
    assert_loaded(loaded(tmp_path), sandbox.records())
    assert sandbox.unread() == 250

    # A run whose target fails marks what earlier runs have loaded, and leaves the rest unread.
    sandbox.write(['{"new": 1}', '{"new": 2}'])
    load("config.json", "sh", "-c", "cat > /dev/null; exit 3", code=3)
    assert sandbox.unread() == 2

    # Settings may come from the environment alone.
    load("ENV", *target, env=environment(PATH=PATH, **sandbox.variables), cwd="/")
    assert_loaded(loaded(tmp_path), sandbox.records())
    load("config.json", *target)
    assert sandbox.unread() == 0
    assert_loaded(loaded(tmp_path), sandbox.records())


def test_load_sh_lets_no_second_run_in(target, tmp_path):
    config = write_json(tmp_path / "config.json", Sandbox(12).config)
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = run([DEPLOY / "load.sh", config, tmp_path, *target], env=environment(PATH=PATH))
    assert "another run is under way" in ended.stderr
    assert loaded(tmp_path) == []


def test_follow_sh_loses_nothing_when_it_is_stopped(target, tmp_path):
    """Stops it while the pipe holds all that the tap has marked: the target starts only once there is a file `go`."""
    sandbox = Sandbox(100)
    config = write_json(tmp_path / "config.json", sandbox.config | {"pollIntervalSeconds": 0})
    waiting_target = ["sh", "-c", 'until [ -e go ]; do sleep 0.01; done; exec "$@"', "sh", *target]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    follow = start([DEPLOY / "follow.sh", config, *waiting_target], env=environment(PATH=PATH), cwd=tmp_path, **quiet)
    wait_until_all_is_read(sandbox)
    sandbox.write(f'{{"new": {number}}}' for number in range(30))
    wait_until_all_is_read(sandbox)
    assert loaded(tmp_path) == []
    # Like systemd with KillMode=mixed.
    os.kill(follow.pid, signal.SIGTERM)
    (tmp_path / "go").touch()
    assert follow.wait(TIMEOUT) == 128 + signal.SIGTERM
    assert_loaded(loaded(tmp_path), sandbox.records())


def wait_until_all_is_read(sandbox):
    deadline = time.monotonic() + 120
    while sandbox.unread() > 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_systemd_accepts_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    units = ["streamduo-load@.service", "streamduo-load@.timer", "streamduo-follow@.service"]
    for name in units:
        # It checks that the scripts exist.
        text = (DEPLOY / "systemd" / name).read_text().replace("/usr/local/lib/streamduo", str(DEPLOY))
        (tmp_path / name).write_text(text)
    for name in units:
        ended = run(["systemd-analyze", "verify", "--man=no", tmp_path / name.replace("@", "@orders")])
        assert ended.stderr == ""


def test_kubernetes_accepts_the_manifest(kubernetes_programs, readme_settings):
    manifest = DEPLOY / "kubernetes" / "cronjob.yaml"
    run([kubernetes_programs / "kubernetes-validate", "--strict", manifest])
    read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
    secret, _, job = json.loads(run([kubernetes_programs / "python", "-c", read, manifest]).stdout)
    assert set(secret["stringData"]) <= {f"TAP_STREAMDUO_{name.upper()}" for name in readme_settings}
    # Two jobs must not read one stream at the same time.
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
