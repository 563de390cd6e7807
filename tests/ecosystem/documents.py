"""That the files which name the settings agree: README.md and meltano.yml; and that Meltano's own schema takes the latter."""

import json
import re

from bench import ROOT, TAP, expect, run, venv

# Run by the Python of Meltano's virtual environment, which knows YAML and Meltano's schema.
LOOK = """
import importlib.resources, json, sys, jsonschema, yaml
schema = json.loads(importlib.resources.files("meltano.schemas").joinpath("meltano.schema.json").read_text())
found = []
for path in sys.argv[1:]:
    with open(path) as file:
        project = yaml.safe_load(file)
    for error in jsonschema.Draft202012Validator(schema).iter_errors(project):
        print(f"{path}: {error.json_path}: {error.message}", file=sys.stderr)
        sys.exit(1)
    found.append(project)
print(json.dumps(found))
"""


def projects(*names):
    paths = [ROOT / name for name in names]
    return json.loads(run([venv("meltano") / "python", "-c", LOOK, *paths]).stdout)


def readme_settings():
    """The settings of the README's table: name, and default."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## Settings\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`|required) \|", section, re.MULTILINE))


def meltano_yml_has_the_readmes_settings():
    [project] = projects("meltano.yml")
    settings = project["plugins"]["extractors"][0]["settings"]
    readme = readme_settings()
    expect(len(readme) > 10, f"the README's table was not found: {readme}")
    expect([s["name"] for s in settings] == list(readme), f"meltano.yml differs from the README's table: {list(readme)}")
    for setting in settings:
        default = readme[setting["name"]]
        kind = "integer" if default.isdecimal() else "options" if "options" in setting else "string"
        expect(setting["kind"] == kind, f"{setting['name']} is {setting['kind']}, but {default!r} is no such thing")
        words = [option["value"] for option in setting.get("options", [])]
        expect(not words or default in words, f"{setting['name']}: {default!r} is not among {words}")
    secret = [s["name"] for s in settings if s.get("sensitive")]
    expect(secret == ["clientSecret"], f"these are marked as sensitive: {secret}")
    return f"{len(settings)} settings"


def meltano_yml_has_the_taps_capabilities():
    about = json.loads(run([TAP, "--about", "--format", "json"]).stdout)
    [project] = projects("meltano.yml")
    capabilities = project["plugins"]["extractors"][0]["capabilities"]
    expect(capabilities == about["capabilities"], f"meltano.yml {capabilities}, --about {about['capabilities']}")


def several_streams_is_a_valid_project_file():
    """Part of a project by `include_paths`, so it is held against the same schema."""
    projects("deploy/meltano/several-streams.meltano.yml")


CHECKS = [
    ("meltano.yml is valid and has the README's settings", meltano_yml_has_the_readmes_settings),
    ("meltano.yml has the capabilities of --about", meltano_yml_has_the_taps_capabilities),
    ("deploy/meltano/several-streams.meltano.yml is valid", several_streams_is_a_valid_project_file),
]
