"""`pip install .` in a clone installs the program, and its wheel becomes a release archive."""

import re
import shutil
import sys
import tarfile

import pytest

from pages import blocks
from processes import RELEASE_BUILD, ROOT, environment, run
from rows import write_json
from sandbox import Sandbox


def test_pip_install_in_a_clone_and_a_release_archive_of_the_wheel(clone, tmp_path):
    assert blocks("README.md", "test_pip_install.py") == ["pip install .\n"]
    # maturin leaves the wheel there. A wheel of an earlier version must not be taken for this one.
    wheels = RELEASE_BUILD / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    run([sys.executable, "-m", "venv", tmp_path / "venv"])
    pip = [tmp_path / "venv/bin/python", "-m", "pip"]
    install = [*pip, "install", "--disable-pip-version-check", "--no-cache-dir", "."]
    ended = run(install, cwd=clone, env=environment(CARGO_TARGET_DIR=RELEASE_BUILD), code=None)
    said = ended.stdout + ended.stderr
    if ended.returncode != 0 and "No matching distribution found for maturin" in said:
        pytest.skip("pip cannot install maturin")
    assert ended.returncode == 0, said[-3000:]

    program = tmp_path / "venv/bin/tap-streamduo"
    version = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert run([program, "--version"], env=environment(PATH="")).stdout.strip() == f"tap-streamduo {version}"
    assert f"\nVersion: {version}\n" in run([*pip, "show", "tap-streamduo"]).stdout
    config = write_json(tmp_path / "config.json", Sandbox(12).config)
    assert run([program, "--config", config]).stdout.count('"type":"RECORD"') == 12

    archives = tmp_path / "archives"
    run([ROOT / "deploy" / "archives.py", wheels, archives, program])
    [file] = archives.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        archive.extractall(archives, filter="data")
    top = archives / file.name.removesuffix(".tar.gz")
    assert run([top / "tap-streamduo", "--version"]).stdout == f"tap-streamduo {version}\n"
    for name in ["LICENSE", "README.md", "docs/targets.md", "completions/_tap-streamduo"]:
        assert (top / name).is_file()
    assert "complete" in (top / "completions/tap-streamduo.bash").read_text()
    assert (top / "man/tap-streamduo.1").read_text().count(".SH") > 3
