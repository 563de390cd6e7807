"""That `pip install .` in a clone puts the program on the PATH, and that its wheel becomes a release archive."""

import re
import shutil
import tarfile

from bench import KEPT, ROOT, Folder, Sandbox, Skip, environment, expect, make_venv, run, write_json


def clone(folder):
    """A copy of what git holds or would add, as a user's clone has it: nothing that is ignored."""
    listed = run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], code=None)
    if listed.code != 0:
        raise Skip(f"there is nothing to clone: {listed.stderr.strip()}")
    for name in sorted(filter(None, listed.stdout.split("\0"))):
        source, copy = ROOT / name, folder / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            # Without its time: cargo takes a file older than its last build for one that it has built.
            copy.write_bytes(source.read_bytes())
            copy.chmod(source.stat().st_mode)
    return folder


# Where the clone's release build goes, so that its crates are built once.
BUILD = environment(CARGO_TARGET_DIR=KEPT / "build")


def pip_install():
    with Folder() as folder, Sandbox(12) as sandbox:
        repository = clone(folder / "clone")
        make_venv(folder / "venv")
        # Where maturin leaves the wheel: none of an earlier version shall be there.
        shutil.rmtree(KEPT / "build" / "wheels", ignore_errors=True)
        programs = folder / "venv" / "bin"
        pip = [programs / "python", "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir"]
        ended = run([*pip, "."], cwd=repository, env=BUILD, code=None)
        said = ended.stdout + ended.stderr
        if ended.code != 0 and "No matching distribution found for maturin" in said:
            raise Skip("pip cannot install maturin")
        expect(ended.code == 0, f"pip install . ended with {ended.code}:\n{said[-3000:]}")
        version = run([programs / "tap-streamduo", "--version"], env=environment(PATH="")).stdout.strip()
        cargo = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
        expect(version == f"tap-streamduo {cargo}", f"--version says {version!r}, Cargo.toml {cargo}")
        listed = run([programs / "python", "-m", "pip", "show", "tap-streamduo"]).stdout
        expect(f"\nVersion: {cargo}\n" in listed, f"pip show says:\n{listed}")
        config = write_json(folder / "config.json", sandbox.config)
        output = run([programs / "tap-streamduo", "--config", config]).stdout
        expect(output.count('"type":"RECORD"') == 12, f"the installed program wrote\n{output}")
        release_archive(programs / "tap-streamduo", folder / "archives")
        return version


def release_archive(program, out):
    """The archive that deploy/archives.py makes of the wheel that pip has just built."""
    wheels = KEPT / "build" / "wheels"
    run([ROOT / "deploy" / "archives.py", wheels, out, program])
    [file] = out.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        archive.extractall(out, filter="data")
    top = out / file.name.removesuffix(".tar.gz")
    said = run([top / "tap-streamduo", "--version"]).stdout
    expect(said == run([program, "--version"]).stdout, f"the archive's program says {said!r}")
    names = {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}
    wanted = {"LICENSE", "README.md", "man/tap-streamduo.1", "completions/tap-streamduo.bash", "completions/_tap-streamduo"}
    expect(wanted <= names, f"the archive holds {names}")
    expect("complete" in (top / "completions/tap-streamduo.bash").read_text(), "the completions complete nothing")
    expect((top / "man/tap-streamduo.1").read_text().count(".SH") > 3, "the man page is empty")


CHECKS = [("pip install . in a clone, and a release archive of the wheel", pip_install)]
