"""A PostgreSQL to throw away: on loopback, on a free port, run by a user other than root."""

import os
import pathlib
import pwd
import secrets
import shutil
import socket
import subprocess

from bench import Folder, Skip, Wrong, environment, lines, run


def programs():
    """The folder of initdb and pg_ctl, of the newest version; installed where there is none and that is allowed."""
    found = find_programs()
    if found is None:
        install()
        found = find_programs()
    if found is None:
        raise Skip("there is no PostgreSQL, and it cannot be installed here: `apt-get install postgresql`")
    return found


def find_programs():
    debian = pathlib.Path("/usr/lib/postgresql")
    versions = sorted(debian.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])) if debian.is_dir() else []
    initdb = versions[-1] if versions else shutil.which("initdb")
    return pathlib.Path(initdb).parent if initdb else None


def install():
    apt = shutil.which("apt-get")
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if apt is None or (sudo and shutil.which("sudo") is None):
        return
    # The run level keeps the package from starting a server of its own where invoke-rc.d decides that.
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", apt, "-q", "-y"]
    print("   installing Debian's postgresql", flush=True)
    run([*apt, "update"], code=None)
    run([*apt, "install", "--no-install-recommends", "postgresql"], code=None)


class Postgres:
    """A cluster that runs until the end of the `with`."""

    user = "loader"
    database = "postgres"

    def __enter__(self):
        self.programs = programs()
        self.password = secrets.token_urlsafe(16)
        self.folder = Folder(public=True)
        top = self.folder.__enter__()
        try:
            self.begin(top)
        except BaseException:
            self.__exit__()
            raise
        return self

    def begin(self, top):
        self.data = top / "data"
        password = top / "password"
        password.write_text(self.password)
        self.as_user = {}
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root. Debian's package has made this user.
            account = next((pwd.getpwnam(name) for name in ["postgres", "nobody"] if known(name)), None)
            if account is None:
                raise Skip("PostgreSQL refuses to run as root, and there is no user postgres or nobody")
            self.as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(top, account.pw_uid, account.pw_gid)
            os.chown(password, account.pw_uid, account.pw_gid)
        made = ["--auth=scram-sha-256", f"--pwfile={password}", f"--username={self.user}", "--no-sync"]
        self.pg("initdb", f"--pgdata={self.data}", "--encoding=UTF8", "--locale=C", *made)
        # Another program may take the port between the look and the start.
        for attempt in range(5):
            self.port = free_port()
            options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
            # A zone that gives away every time stamp that was not taken for one in UTC.
            options += " -c timezone=Asia/Kolkata"
            log = f"--log={top / 'log'}"
            if self.pg("pg_ctl", f"--pgdata={self.data}", log, f"--options={options}", "--wait", "start", code=None) == 0:
                return
        raise Wrong(f"PostgreSQL does not start:\n{(top / 'log').read_text()}")

    def __exit__(self, *_):
        if (self.data / "postmaster.pid").exists():
            self.pg("pg_ctl", f"--pgdata={self.data}", "--mode=immediate", "--wait", "stop", code=None)
        self.folder.__exit__()

    def pg(self, program, *words, code=0):
        # The server keeps what it gets as stdout: no pipe, or its reader would wait for ever.
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
        return run([self.programs / program, *words], code=code, **options, **self.as_user).code

    def query(self, sql):
        """The rows of a query, each as an object."""
        sql = f"select to_json(row) from ({sql}) row"
        where = {"PGHOST": "127.0.0.1", "PGPORT": self.port, "PGUSER": self.user, "PGPASSWORD": self.password}
        where |= {"PGDATABASE": self.database, "PGCLIENTENCODING": "UTF8"}
        psql = [self.programs / "psql", "--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        return lines(run([*psql, f"--command={sql}"], env=environment(**where)).stdout)

    def columns(self, table):
        """The type of every column."""
        schema, name = table.split(".")
        rows = self.query(
            f"select column_name, data_type from information_schema.columns"
            f" where table_schema = '{schema}' and table_name = '{name}'"
        )
        return {row["column_name"]: row["data_type"] for row in rows}

    def target_config(self):
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "database": self.database,
        }


def known(name):
    try:
        return pwd.getpwnam(name) is not None
    except KeyError:
        return False


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
