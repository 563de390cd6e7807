"""Prints what target-duckdb has loaded into a file, as JSON. Needs that target's virtual environment."""

import json
import sys

import duckdb

# The target writes names in lower case.
FIELDS = {name.lower(): name for name in ["recordId", "streamId", "recordTimeStampISO", "readStatus", "dataPayload"]}

database = duckdb.connect(sys.argv[1], read_only=True)
columns = "select column_name, data_type from duckdb_columns() where (schema_name, table_name) = ('main', 'records') order by column_index"
types = {FIELDS.get(name, name): kind for name, kind in database.execute(columns).fetchall()}
rows = [dict(zip(types, row)) for row in database.execute("select * from main.records").fetchall()]
print(json.dumps({"rows": rows, "types": types}, default=str))
