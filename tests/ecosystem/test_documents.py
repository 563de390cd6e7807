"""README.md, `--about`, meltano.yml and Meltano's own schema agree."""

import json

import pytest

from processes import ROOT, TAP, run

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
def extractor(load_valid):
    return load_valid("meltano.yml")["plugins"]["extractors"][0]


def test_meltano_yml_has_the_settings_of_the_readme(extractor, readme_settings):
    assert [setting["name"] for setting in extractor["settings"]] == list(readme_settings)
    for setting in extractor["settings"]:
        default = readme_settings[setting["name"]]
        kind = "integer" if default.isdecimal() else "options" if "options" in setting else "string"
        assert setting["kind"] == kind, setting["name"]
        if options := setting.get("options"):
            assert default in [option["value"] for option in options]
    assert [setting["name"] for setting in extractor["settings"] if setting.get("sensitive")] == ["clientSecret"]


def test_meltano_yml_has_the_capabilities_of_about(extractor):
    about = json.loads(run([TAP, "--about", "--format", "json"]).stdout)
    assert extractor["capabilities"] == about["capabilities"]


def test_several_streams_is_a_valid_part_of_a_project(load_valid):
    load_valid("deploy/meltano/several-streams.meltano.yml")
