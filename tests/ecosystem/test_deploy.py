"""deploy/: every command works as cron, systemd and Kubernetes run it, and systemd and Kubernetes accept their files."""

import fcntl
import os
import re
import shlex
import shutil
import signal
import time

import pytest

from pages import blocks
from processes import PATH, ROOT, TAP, TIMEOUT, environment, run, start
from rows import assert_loaded, read_lines, write_json
from sandbox import Sandbox

DEPLOY = ROOT / "deploy"


def test_cron_loads_each_stream_and_lets_no_second_run_of_it_in(jsonl_programs, tmp_path):
    etc, var = tmp_path / "etc", tmp_path / "var"
    etc.mkdir()
    var.mkdir()
    sandbox = Sandbox()
    streams = {name: sandbox.create_stream(name) for name in ["orders", "prices"]}
    for count, (name, stream) in enumerate(streams.items(), start=12):
        sandbox.write((f'{{"{name}": {number}}}' for number in range(count)), stream)
        write_json(etc / f"{name}.json", sandbox.config | {"streamId": stream, "streamName": name})
    write_json(etc / "target-jsonl.json", {"destination_path": str(var), "do_timestamp_file": False})

    text = (DEPLOY / "streamduo.cron").read_text().replace("/etc/streamduo/", f"{etc}/").replace("/var/lib/streamduo/", f"{var}/")
    [path] = re.findall(r"^PATH=(.+)$", text, re.MULTILINE)
    lines = re.findall(r"^(?:\S+ ){5}streamduo (.+)$", text, re.MULTILINE)
    assert len(lines) == len(streams)

    def run_line(line, code=0):
        # As cron does it.
        variables = {"PATH": f"{TAP.parent}:{jsonl_programs}:{path}", "HOME": str(tmp_path), "SHELL": "/bin/sh"}
        ended = run(["/bin/sh", "-c", line], env=variables, cwd=tmp_path, code=code)
        # Cron sends a mail with what a line prints.
        assert ended.stdout + ended.stderr == ""

    for line, (name, stream) in zip(lines, streams.items()):
        with open(var / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            run_line(line, code=1)
        assert not (var / f"{name}.jsonl").exists()
        run_line(line)
        assert sandbox.unread(stream) == 0
        assert_loaded(read_lines(var / f"{name}.jsonl"), sandbox.records(stream))
        assert "marked as read" in (var / f"{name}.log").read_text()


@pytest.fixture
def run_unit(jsonl_programs, tmp_path):
    """Starts what a systemd service starts, with the settings of this sandbox."""

    def run_unit(name, sandbox):
        [words] = re.findall(r"^ExecStart=(.+)$", (DEPLOY / "systemd" / name).read_text(), re.MULTILINE)
        write_json(tmp_path / "config.json", sandbox.config)
        program, *words = shlex.split(words.replace("%d", str(tmp_path)))
        assert program == "/usr/local/bin/tap-streamduo"
        variables = environment(PATH=f"{jsonl_programs}:{PATH}")
        return start(["tap-streamduo", *words], env=variables, cwd=tmp_path)

    return run_unit


def loaded_files(folder):
    return [row for path in folder.glob("records-*.jsonl") for row in read_lines(path)]


def test_the_load_unit_loads_all_and_marks_it(run_unit, tmp_path):
    sandbox = Sandbox(250)
    assert run_unit("streamduo-load@.service", sandbox).wait(TIMEOUT) == 0
    assert sandbox.unread() == 0
    assert_loaded(loaded_files(tmp_path), sandbox.records())


def test_the_follow_unit_loses_nothing_when_it_is_stopped(run_unit, tmp_path):
    sandbox = Sandbox(250)
    unit = run_unit("streamduo-follow@.service", sandbox)
    stop_once_drained(unit, sandbox)
    assert_loaded(loaded_files(tmp_path), sandbox.records())


def stop_once_drained(process, sandbox):
    """Stops it as systemd with KillMode=mixed and Kubernetes do: SIGTERM goes to this process alone."""
    deadline = time.monotonic() + 120
    while sandbox.unread() > 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(TIMEOUT) == 128 + signal.SIGTERM
    assert sandbox.unread() == 0


def test_systemd_accepts_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    program = tmp_path / "tap-streamduo"
    program.touch(0o755)
    units = ["streamduo-load@.service", "streamduo-load@.timer", "streamduo-follow@.service"]
    for name in units:
        # It checks that the program exists.
        text = (DEPLOY / "systemd" / name).read_text().replace("/usr/local/bin/tap-streamduo", str(program))
        (tmp_path / name).write_text(text)
    for name in units:
        ended = run(["systemd-analyze", "verify", "--man=no", tmp_path / name.replace("@", "@orders")])
        assert ended.stderr == ""


def test_systemd_enables_what_the_page_says(tmp_path):
    """docs/deploy.md. Nothing is started: that needs a system that systemd runs."""
    if shutil.which("systemctl") is None:
        pytest.skip("there is no systemctl")
    units = tmp_path / "etc/systemd/system"
    shutil.copytree(DEPLOY / "systemd", units)
    [block] = blocks("docs/deploy.md", "test_deploy.py")
    for line in block.splitlines():
        program, command, now, unit = shlex.split(line, comments=True)
        assert (program, command, now) == ("systemctl", "enable", "--now")
        run(["systemctl", f"--root={tmp_path}", "enable", unit])
    assert (units / "timers.target.wants/streamduo-load@orders.timer").is_symlink()
    assert (units / "multi-user.target.wants/streamduo-follow@orders.service").is_symlink()


def test_kubernetes_accepts_the_manifests(manifests, page_settings):
    secret, job, follower = manifests["Secret"], manifests["CronJob"]["spec"], manifests["Deployment"]["spec"]
    settings = [name for name in secret["stringData"] if name.startswith("TAP_")]
    assert set(settings) <= {f"TAP_STREAMDUO_{name.upper()}" for name in page_settings}
    # Two taps must not read one stream at the same time.
    assert job["concurrencyPolicy"] == "Forbid"
    assert (follower["replicas"], follower["strategy"]) == (1, {"type": "Recreate"})
    for pod, container in pods(manifests):
        assert "volumes" not in pod
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]


def pods(manifests):
    """The pods that load and that follow, each with its container."""
    for template in [manifests["CronJob"]["spec"]["jobTemplate"]["spec"]["template"], manifests["Deployment"]["spec"]["template"]]:
        [container] = template["spec"]["containers"]
        yield template["spec"], container


def test_the_containers_load_all_and_mark_it(manifests, postgres_programs, postgres_server):
    load, follow = (["tap-streamduo", *container["args"]] for _, container in pods(manifests))
    sandbox = Sandbox(250)
    variables = dict(manifests["Secret"]["stringData"])
    variables |= {name: value for name, value in sandbox.variables.items() if name != "TAP_STREAMDUO_STREAMNAME"}
    variables |= {f"TARGET_POSTGRES_{name.upper()}": value for name, value in postgres_server.target_config.items()}
    env = environment(PATH=f"{postgres_programs}:{PATH}", **variables)

    run(load, env=env)
    assert sandbox.unread() == 0
    assert_loaded(postgres_server.rows("streamduo.orders"), sandbox.records())

    sandbox.write(f'{{"new": {number}}}' for number in range(30))
    stop_once_drained(start(follow, env=env), sandbox)
    assert_loaded(postgres_server.rows("streamduo.orders"), sandbox.records())
