"""target-postgres loads every record into a real PostgreSQL."""

import json
import re

import pytest

from pages import blocks, run_block
from processes import HERE, PATH, ROOT, environment
from rows import CARS, CAR_SCHEMA, OBJECTS, SCALARS, assert_loaded, at_instants, extracted, parse, whole, write_json
from sandbox import Sandbox, run_tap


def test_default_settings(new_table, tmp_path):
    sandbox, table = Sandbox(1200), new_table("defaults")
    sandbox.write(OBJECTS + SCALARS)
    output = run_tap(sandbox, tmp_path)
    for _ in range(2):
        assert_loaded(table.load(output), sandbox.records())
    sandbox.write(OBJECTS)
    assert_loaded(table.load(run_tap(sandbox, tmp_path)), sandbox.records())
    assert table.types()["dataPayload"] == "jsonb"
    assert table.types()["recordId"] == "text"


def test_record_metadata(new_table, tmp_path):
    sandbox, table = Sandbox(250), new_table("metadata", add_record_metadata=True)
    output = run_tap(sandbox, tmp_path)
    assert_loaded(table.load(output, PGTZ="UTC"), sandbox.records())
    assert table.extracted() == extracted(output)


def test_payload_format_string(new_table, tmp_path):
    sandbox, table = Sandbox(250), new_table("strings")
    sandbox.write(OBJECTS + SCALARS)
    rows = table.load(run_tap(sandbox, tmp_path, payloadFormat="string"))
    assert table.types()["dataPayload"] == "text"
    for row in rows:
        row["dataPayload"] = None if row["dataPayload"] is None else parse(row["dataPayload"])
    assert_loaded(rows, sandbox.records())


def test_timestamp_format_rfc3339(new_table, tmp_path):
    """The target makes a column without a time zone and fills it in the zone of its connection: PGTZ, or else the server's."""
    sandbox = Sandbox(250)
    output = run_tap(sandbox, tmp_path, timestampFormat="rfc3339")
    written = at_instants(sandbox.records())

    utc = new_table("rfc3339_utc")
    utc.load(output, PGTZ="UTC")
    assert_loaded(at_instants(utc.load(output, PGTZ="UTC")), written)
    assert utc.types()["recordTimeStampISO"].startswith("timestamp")

    local = new_table("rfc3339_local")
    rows = local.load(output)
    instants = local.instants()
    assert_loaded(at_instants(row | {"recordTimeStampISO": instants[row["recordId"]]} for row in rows), written)


@pytest.mark.parametrize("source", ["registered", "sampled"])
def test_payload_schema(new_table, tmp_path, source):
    """The payload as columns, in one column and flattened into a column for each field."""
    sandbox = Sandbox()
    sandbox.register(CAR_SCHEMA)
    sandbox.write(CARS)
    output = run_tap(sandbox, tmp_path, payloadSchema=source, columnsFile=str(tmp_path / "columns.json"))
    written = sandbox.records()
    assert_loaded([whole(row) for row in new_table(source).load(output)], written)

    flat = new_table(f"{source}_flat", flattening_enabled=True, flattening_max_depth=2)
    rows = flat.load(output)
    types = {name: kind for name, kind in flat.types().items() if name.startswith("dataPayload__")}
    for name, kind in {"make": "text", "price": "numeric", "doors": "bigint", "sold": "boolean"}.items():
        assert types.get(f"dataPayload__{name}") == kind
    assert_loaded([whole(row) for row in rows], written)


def test_the_page(postgres_server, postgres_programs, tmp_path):
    """docs/postgres.md, with the payloads of the example in docs/columns.md."""
    install, load, try_it = blocks("docs/postgres.md", "test_postgres.py")
    pins = (HERE / "requirements-postgres.txt").read_text().split()
    assert [word for word in install.split() if "==" in word and word not in pins] == []
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "bin").symlink_to(postgres_programs)

    text = (ROOT / "docs/postgres.md").read_text(encoding="utf-8")
    target, tap = map(json.loads, re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    payloads = re.search(r"^```json\n(.*?)^```$", (ROOT / "docs/columns.md").read_text().partition("sends these")[2], re.M | re.S)
    sandbox = Sandbox()
    sandbox.write([*payloads[1].splitlines(), '{"make": "VW", "price": 59.949999999999996}'])
    # Other checks load into the same server.
    write_json(tmp_path / "target.json", target | postgres_server.target_config | {"default_target_schema": "page"})
    write_json(tmp_path / "config.json", sandbox.config | tap)

    server = postgres_server.target_config
    variables = {f"PG{name.upper()}": server[name] for name in ["host", "port", "user", "password"]}
    command = load.replace(f"psql {target['database']}", f"{postgres_server.programs}/psql {server['database']}")
    command = command.replace(f"{target['default_target_schema']}.orders", "page.orders")
    ended = run_block(command, cwd=tmp_path, env=environment(PATH=PATH, **variables))
    assert "4 records written" in ended.stderr
    rest = '{"price":"N/A"}'
    assert f"`{rest}`" in text and rest in ended.stdout
    types = postgres_server.column_types("page.orders")
    shown = {"make": "text", "price": "numeric", "seller__name": "text", "sold": "boolean"}
    assert {name: types[f"dataPayload__{name}"] for name in shown} == shown
    assert types["recordTimeStampISO"].startswith("timestamp") and types["dataPayloadRest"] == "text"
    value = re.search(r"`(coalesce.*)`", text)[1].replace("lat", "price")
    rows = postgres_server.query(f"""select {value} as price from page.orders where "dataPayload__make" = 'VW'""")
    assert [str(row["price"]) for row in rows] == ["59.949999999999996"]

    (tmp_path / "payloads.jsonl").write_text(payloads[1])
    tried = run_block(try_it.replace("target/debug/", ""), cwd=tmp_path, env=environment(PATH=PATH))
    assert "3 records, 0 marked as read" in tried.stderr
