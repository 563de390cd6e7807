"""The documents, `--about`, meltano.yml, the definition for Meltano Hub and Meltano's own schema agree."""

import json
import re

import pytest

from pages import blocks, run_block
from processes import HERE, ROOT, TAP, TARGET, run
from rows import write_json
from sandbox import Sandbox, run_tap

# Needs the Python of Meltano's virtual environment.
VALIDATE = """
import importlib.resources, json, sys, jsonschema, yaml
schema = json.loads(importlib.resources.files("meltano.schemas").joinpath("meltano.schema.json").read_text())
with open(sys.argv[1]) as file:
    project = yaml.safe_load(file)
for error in jsonschema.Draft202012Validator(schema).iter_errors(project):
    sys.exit(f"{error.json_path}: {error.message}")
print(json.dumps(project))
"""


@pytest.fixture
def load_valid(meltano_programs):
    """Reads a project file that has to fit Meltano's schema."""
    return lambda name: json.loads(run([meltano_programs / "python", "-c", VALIDATE, ROOT / name]).stdout)


@pytest.fixture
def hub_plugin(meltano_programs):
    """The definition for Meltano Hub."""
    read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))"
    return json.loads(run([meltano_programs / "python", "-c", read, ROOT / "deploy/meltano/hub/tap-streamduo.yml"]).stdout)


@pytest.fixture
def about():
    return json.loads(run([TAP, "--about", "--format", "json"]).stdout)


@pytest.fixture
def extractor(load_valid):
    return load_valid("meltano.yml")["plugins"]["extractors"][0]


def test_meltano_yml_has_the_settings_of_the_page(extractor, page_settings):
    assert [setting["name"] for setting in extractor["settings"]] == list(page_settings)
    for setting in extractor["settings"]:
        default = page_settings[setting["name"]]
        kind = "integer" if default.isdecimal() else "options" if "options" in setting else "string"
        assert setting["kind"] == kind, setting["name"]
        if options := setting.get("options"):
            assert default in [option["value"] for option in options]
    assert [setting["name"] for setting in extractor["settings"] if setting.get("sensitive")] == ["clientSecret"]


def test_meltano_yml_has_the_capabilities_of_about(extractor, about):
    assert extractor["capabilities"] == about["capabilities"]


def test_the_hub_definition_has_what_about_says(hub_plugin, about):
    assert hub_plugin["name"] == about["name"]
    assert hub_plugin["capabilities"] == about["capabilities"]
    assert hub_plugin["settings_group_validation"] == [about["settings"]["required"]]
    properties = about["settings"]["properties"]
    assert [setting["name"] for setting in hub_plugin["settings"]] == list(properties)
    for setting in hub_plugin["settings"]:
        name = setting["name"]
        expected = properties[name]
        kind = "options" if "enum" in expected else "password" if expected.get("secret") else expected["type"][0]
        assert setting["kind"] == kind, name
        assert setting.get("sensitive", False) is expected.get("secret", False), name
        assert [option["value"] for option in setting.get("options", [])] == expected.get("enum", []), name
        assert setting["description"].rstrip(".").lower() == expected["description"].lower(), name
        # With Meltano, `commit` is what loses nothing. The user agent has the version in it.
        default = {"acknowledge": "commit", "userAgent": None}.get(name, expected.get("default"))
        assert setting.get("value") == default, name


def test_the_hub_definition_has_the_options_of_meltano_yml(hub_plugin, extractor):
    options = lambda plugin: {setting["name"]: setting.get("options") for setting in plugin["settings"]}
    assert options(hub_plugin) == options(extractor)
    for name in ["namespace", "label", "executable", "select", "settings_group_validation"]:
        assert hub_plugin[name] == extractor[name], name


def test_several_streams_is_a_valid_part_of_a_project(load_valid):
    load_valid("deploy/meltano/several-streams.meltano.yml")


def test_the_commands_of_the_readme_load_into_duckdb(duckdb_programs, read_duckdb, tmp_path):
    """README.md, "Try it"."""
    [block] = blocks("README.md", "test_documents.py")
    pins = (HERE / "requirements-duckdb.txt").read_text().split()
    assert [word for word in block.split() if "==" in word and word not in pins] == []
    (tmp_path / "target").symlink_to(TARGET)
    ended = run_block(block, cwd=tmp_path)
    assert "1000 records, 1000 marked as read, 0 unread" in ended.stderr
    assert "carData" in ended.stdout
    assert len(read_duckdb(tmp_path / "cars.duckdb")[0]) == 1000


def test_the_table_of_the_columns_page(duckdb_programs, read_duckdb, tmp_path):
    text = (ROOT / "docs/columns.md").read_text(encoding="utf-8")
    example = text.partition("\n## An example\n")[2].partition("\n## ")[0]
    payloads = re.search(r"^```json\n(.*?)^```$", example, re.MULTILINE | re.DOTALL)[1]
    head, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in example.splitlines() if line.startswith("|")]
    shown = [dict(zip(head, line)) for line in lines]

    sandbox, database = Sandbox(), tmp_path / "records.duckdb"
    sandbox.write(payloads.splitlines())
    output = run_tap(sandbox, tmp_path, payloadSchema="sampled", columnsFile=str(tmp_path / "columns.json"))
    settings = {"filepath": str(database), "default_target_schema": "main", "data_flattening_max_level": 4}
    run([duckdb_programs / "target-duckdb", "--config", write_json(tmp_path / "duckdb.json", settings)], input=output)
    rows = sorted(read_duckdb(database)[0], key=lambda row: row["recordTimeStampISO"])
    columns = [name for name in rows[0] if name.startswith("dataPayload")]
    assert sorted(columns) == sorted(head)
    for row, expected in zip(rows, shown, strict=True):
        for name, cell in expected.items():
            value = row[name]
            if name.endswith("price"):
                assert value == (float(cell) if cell else None)
            else:
                assert value == {"": None, "true": True}.get(cell, cell)
