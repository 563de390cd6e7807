"""Loads StreamDuo streams every ten minutes, with a task for each stream.

1. Install tap-streamduo and your target on the workers, which run Linux. Both have to be on the worker's PATH.
2. Put this file into Airflow's folder of DAGs. List your streams in STREAMS and name your target in TARGET.
3. Make a connection `streamduo`: its login is the machine client's id, its password the client's secret. Its extra may hold
   settings that all streams share, such as {"maxPending": 50000}.

The tap runs the target, and marks records as read once the target has committed them. So a task keeps no state: a retry, or the
next run, goes on where a failed one stopped. Tried with Airflow 3.3.2.
"""

import datetime
import os
import subprocess
import threading

from airflow.sdk import DAG, BaseHook, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout

# The streams, each by its name in the target, with its settings: see docs/settings.md.
STREAMS = {
    "orders": {"streamId": "60c49e86-9db3-414a-87a1-f51ccee4ec0c"},
    "prices": {"streamId": "1f0c8a52-6a0e-4c7e-9d52-0b7d3f1a9e64"},
}

# The target. It gets the worker's environment, but no variable that begins with TAP_STREAMDUO_ or AIRFLOW_. So a target such as
# `target-postgres --config ENV` can take its secret from the environment.
TARGET = ["target-jsonl", "--config", "/etc/streamduo/target-jsonl.json"]

# A wrong setting, or no tap or target to run: a retry does not help.
PERMANENT_FAILURES = {2, 126, 127}

# After a stop: how long the target may take to commit what it has.
GRACE = datetime.timedelta(minutes=2)


class LoadStream(BaseOperator):
    """Runs the tap with its target until the stream has no unread records left."""

    def __init__(self, *, stream, **options):
        super().__init__(**options)
        self.stream = stream
        self.tap = None

    def execute(self, context):
        # If the task's process is killed, the kernel sends SIGTERM to the tap: it must not read the stream beside a retry.
        command = ["setpriv", "--pdeathsig", "TERM", "tap-streamduo", "--config", "ENV", "--", *TARGET]
        # With a target, the tap writes nothing to stdout. Its log and the target's come from stderr. The session of its own keeps a
        # signal to the task's process group from the tap: it would come beside the one that on_kill sends, and end the tap at once.
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.tap = subprocess.Popen(command, env=self.environment(), start_new_session=True, **pipes)
        log = threading.Thread(target=self.copy_log, daemon=True)
        log.start()
        try:
            code = self.tap.wait()
        except AirflowTaskTimeout:
            # Wait for the tap, so that no retry reads the stream beside it.
            self.stop()
            raise
        finally:
            log.join(timeout=5)
        problem = f"tap-streamduo has ended with code {code}; its log says why"
        if code in PERMANENT_FAILURES:
            raise AirflowFailException(problem)
        if code != 0:
            raise AirflowException(problem)

    def environment(self):
        """The tap's settings as environment variables. No file and no command line shows the secret."""
        connection = BaseHook.get_connection("streamduo")
        settings = {"streamName": self.stream, "clientId": connection.login, "clientSecret": connection.password}
        settings |= connection.extra_dejson | STREAMS[self.stream]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        return inherited | {f"TAP_STREAMDUO_{name.upper()}": str(value) for name, value in settings.items()}

    def copy_log(self):
        for line in self.tap.stdout:
            self.log.info("%s", line.decode(errors="replace").rstrip())

    def stop(self):
        """At the first SIGTERM the target commits what it has, and the tap marks that. At the second the tap ends at once."""
        self.on_kill()
        try:
            self.tap.wait(GRACE.total_seconds())
        except subprocess.TimeoutExpired:
            self.on_kill()
            self.tap.wait()

    def on_kill(self):
        """Airflow calls this when somebody ends the task, when the worker is stopped, and after a time-out."""
        if self.tap is not None and self.tap.poll() is None:
            self.tap.terminate()


with DAG(
    dag_id="streamduo",
    schedule="*/10 * * * *",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    catchup=False,
    # Two taps must not read one stream at the same time.
    max_active_runs=1,
    default_args={
        "max_active_tis_per_dag": 1,
        # After 1 to 2, 2 to 4 and 4 to 8 minutes. For so long a stream that fails keeps the others from their next run.
        "retries": 3,
        "retry_delay": datetime.timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        # A backlog that takes longer goes on with the retry.
        "execution_timeout": datetime.timedelta(hours=1),
    },
):
    for stream in STREAMS:
        LoadStream(task_id=stream, stream=stream)
