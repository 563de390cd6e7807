"""A PostgreSQL for the time of the checks: on loopback, on a free port, run by a user other than root."""

import contextlib
import os
import pathlib
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile

import pytest

from processes import environment, is_set, run
from rows import instant, parse_lines, write_json


@contextlib.contextmanager
def serve():
    may_install = is_set("ECOSYSTEM_INSTALL")
    if may_install and find_programs() is None:
        install()
    programs = find_programs()
    if programs is None:
        why = "it cannot be installed here" if may_install else "ECOSYSTEM_INSTALL=1 installs it from Debian"
        pytest.skip(f"there is no PostgreSQL (`apt-get install postgresql`), and {why}")
    with tempfile.TemporaryDirectory(prefix="tap-streamduo-", ignore_cleanup_errors=True) as folder:
        server = Server(programs, pathlib.Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def find_programs():
    """The folder of initdb and pg_ctl, of the newest version."""
    versions = pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")
    initdb = max(versions, key=lambda path: int(path.parts[-3]), default=None) or shutil.which("initdb")
    return initdb and pathlib.Path(initdb).parent


def install():
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if all(map(shutil.which, ["apt-get", *sudo[:1]])):
        # With this run level invoke-rc.d starts no server for the package.
        apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "-q", "-y"]
        run([*apt, "update"], code=None)
        run([*apt, "install", "--no-install-recommends", "postgresql"], code=None)


class Server:
    user = "loader"
    database = "postgres"

    def __init__(self, programs, folder):
        self.programs = programs
        self.folder = folder
        self.data = folder / "data"
        self.password = secrets.token_urlsafe(16)
        self.as_user = {}

    def start(self):
        password = self.folder / "password"
        password.write_text(self.password)
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root. Debian's package has made the user postgres.
            known = {account.pw_name: account for account in pwd.getpwall()}
            account = known.get("postgres") or known.get("nobody")
            if account is None:
                pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres or nobody")
            self.as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            os.chown(password, account.pw_uid, account.pw_gid)
        access = ["--auth=scram-sha-256", f"--pwfile={password}", f"--username={self.user}"]
        self.control("initdb", "--encoding=UTF8", "--locale=C", "--no-sync", *access)
        log = self.folder / "log"
        # Another program may take the free port first.
        for _ in range(5):
            self.port = free_port()
            options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
            # A time zone far from UTC reveals a time stamp that is not taken as UTC.
            options += " -c timezone=Asia/Kolkata"
            if self.control("pg_ctl", f"--log={log}", f"--options={options}", "--wait", "start", code=None) == 0:
                return
        pytest.fail(f"PostgreSQL does not start:\n{log.read_text()}")

    def stop(self):
        if (self.data / "postmaster.pid").exists():
            self.control("pg_ctl", "--mode=immediate", "--wait", "stop", code=None)

    def control(self, program, *words, code=0):
        # No pipe as stdout: the server inherits it, so a reader would wait for the server's end.
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"} | self.as_user
        return run([self.programs / program, f"--pgdata={self.data}", *words], code=code, **options).returncode

    def query(self, sql):
        """The rows of a query, each as an object."""
        variables = {"PGHOST": "127.0.0.1", "PGPORT": self.port, "PGUSER": self.user, "PGPASSWORD": self.password}
        variables |= {"PGDATABASE": self.database, "PGCLIENTENCODING": "UTF8"}
        psql = [self.programs / "psql", "--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        command = f"--command=select to_json(row) from ({sql}) row"
        return parse_lines(run([*psql, command], env=environment(**variables)).stdout)

    def rows(self, table):
        """All rows of a table, without the target's own columns."""
        rows = self.query(f"select * from {table}")
        return [{name: value for name, value in row.items() if not name.startswith("_sdc_")} for row in rows]

    def column_types(self, table):
        schema, name = table.split(".")
        rows = self.query(
            f"select column_name, data_type from information_schema.columns"
            f" where table_schema = '{schema}' and table_name = '{name}'"
        )
        return {row["column_name"]: row["data_type"] for row in rows}

    @property
    def target_config(self):
        names = ["port", "user", "password", "database"]
        return {"host": "127.0.0.1"} | {name: getattr(self, name) for name in names}


class Table:
    """A table in a database schema of its own, and the target that loads into it."""

    def __init__(self, programs, server, folder, schema, **settings):
        self.server = server
        self.name = f"{schema}.records"
        config = write_json(folder / f"{schema}.json", server.target_config | {"default_target_schema": schema} | settings)
        self.target = [programs / "target-postgres", "--config", config]

    def load(self, output, **variables):
        """Loads the tap's output and returns all rows loaded so far."""
        run(self.target, input=output, env=environment(**variables))
        return self.rows()

    def rows(self):
        return self.server.rows(self.name)

    def instants(self):
        """The instant of each record, if its time stamp is in the time zone of the server."""
        instant = '"recordTimeStampISO" at time zone current_setting(\'TimeZone\')'
        rows = self.server.query(f'select "recordId", {instant} as instant from {self.name}')
        return {row["recordId"]: row["instant"] for row in rows}

    def extracted(self):
        """When each record was read from the service, in UTC if the target's connection is."""
        rows = self.server.query(f'select "recordId", _sdc_extracted_at from {self.name}')
        return {row["recordId"]: instant(row["_sdc_extracted_at"]) for row in rows}

    def types(self):
        return self.server.column_types(self.name)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
