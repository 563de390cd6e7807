"""target-duckdb loads every record."""

import pytest

from processes import run
from rows import CARS, CAR_SCHEMA, OBJECTS, SCALARS, assert_loaded, at_instants, extracted, instant, whole, write_json
from sandbox import Sandbox, run_tap


@pytest.fixture
def load(duckdb_programs, read_duckdb, tmp_path):
    """Loads the tap's output and returns all rows loaded so far, and the types of their columns."""
    database = tmp_path / "records.duckdb"
    # Small batches, to see a row that is lost at the border of one.
    settings = {"filepath": str(database), "default_target_schema": "main", "batch_size_rows": 50}

    def load(output, **more):
        config = write_json(tmp_path / "duckdb.json", settings | more)
        run([duckdb_programs / "target-duckdb", "--config", config], input=output)
        return read_duckdb(database)

    return load


def test_default_settings(load, tmp_path):
    sandbox = Sandbox(1200)
    # Without strings and booleans: the target writes Python's text of a value into a CSV file, so a bare string or boolean does
    # not fit its JSON column. `payloadFormat: string` is for those.
    sandbox.write(OBJECTS + ["42", "-0.5", "null"])
    output = run_tap(sandbox, tmp_path)
    for _ in range(2):
        assert_loaded(load(output)[0], sandbox.records())
    sandbox.write(OBJECTS)
    assert_loaded(load(run_tap(sandbox, tmp_path))[0], sandbox.records())


def test_metadata_columns(load, tmp_path):
    sandbox = Sandbox(250)
    output = run_tap(sandbox, tmp_path)
    rows, _ = load(output, add_metadata_columns=True)
    assert {row["recordId"]: instant(row["_sdc_extracted_at"]) for row in rows} == extracted(output)
    assert_loaded([{name: value for name, value in row.items() if not name.startswith("_sdc_")} for row in rows], sandbox.records())


def test_payload_format_string(load, tmp_path):
    sandbox = Sandbox(250)
    sandbox.write(OBJECTS + SCALARS)
    rows, types = load(run_tap(sandbox, tmp_path, payloadFormat="string"))
    assert types["dataPayload"] == "VARCHAR"
    assert_loaded(rows, sandbox.records())


def test_timestamp_format_rfc3339(load, tmp_path):
    sandbox = Sandbox(250)
    rows, types = load(run_tap(sandbox, tmp_path, timestampFormat="rfc3339"))
    assert types["recordTimeStampISO"].startswith("TIMESTAMP")
    assert_loaded(at_instants(rows), at_instants(sandbox.records()))


@pytest.mark.parametrize("levels", [0, 4])
@pytest.mark.parametrize("source", ["registered", "sampled"])
def test_payload_schema(load, tmp_path, source, levels):
    """The payload as columns, in one column and flattened into a column for each field."""
    sandbox = Sandbox()
    sandbox.register(CAR_SCHEMA)
    sandbox.write(CARS)
    output = run_tap(sandbox, tmp_path, payloadSchema=source, columnsFile=str(tmp_path / "columns.json"))
    rows, types = load(output, data_flattening_max_level=levels)
    assert ("dataPayload__price" in types) == (levels > 0)
    assert_loaded([whole(row) for row in rows], sandbox.records())
