"""target-postgres loads every record into a real PostgreSQL."""

import pytest

from rows import CARS, CAR_SCHEMA, OBJECTS, SCALARS, assert_loaded, at_instants, extracted, parse, whole
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
