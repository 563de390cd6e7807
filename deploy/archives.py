#!/usr/bin/env python3
"""Makes release archives from wheels: archives.py WHEELS OUT PROGRAM

Writes into the folder OUT an archive for each wheel in the folder WHEELS, and SHA256SUMS. An
archive holds the wheel's program, the licence, the README with the pages of docs/, the change log,
completions for bash, zsh, fish and PowerShell, and the man page. PROGRAM is a tap-streamduo that
runs on this machine: it prints the completions and the man page.
"""

import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]

COMPLETIONS = {
    "bash": "completions/tap-streamduo.bash",
    "zsh": "completions/_tap-streamduo",
    "fish": "completions/tap-streamduo.fish",
    "powershell": "completions/_tap-streamduo.ps1",
}


def main(wheels, out, program):
    say = lambda *words: subprocess.run([program, *words], check=True, stdout=subprocess.PIPE).stdout
    documents = {path: say("--completions", shell) for shell, path in COMPLETIONS.items()}
    documents["man/tap-streamduo.1"] = say("--man")
    documents |= {name: (ROOT / name).read_bytes() for name in ["LICENSE", "README.md", "CHANGELOG.md"]}
    documents |= {f"docs/{path.name}": path.read_bytes() for path in (ROOT / "docs").glob("*.md")}
    found = sorted(pathlib.Path(wheels).glob("*.whl"))
    if not found:
        sys.exit(f"{wheels} holds no wheel")
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    archives = [archive(wheel, documents, out) for wheel in found]
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in archives)
    (out / "SHA256SUMS").write_text(sums)
    print(sums, end="")


def archive(wheel, documents, out):
    """Writes the archive of one wheel: a zip file for Windows, else a tar.gz."""
    name, version, *_, platform = wheel.stem.split("-")
    # The platform may be several tags, separated by dots. The first one will do.
    name = f"{name.replace('_', '-')}-{version}-{platform.split('.')[0]}"
    with zipfile.ZipFile(wheel) as file:
        [member] = [member for member in file.namelist() if ".data/scripts/" in member]
        program = {pathlib.PurePosixPath(member).name: file.read(member)}
    files = {f"{name}/{path}": data for path, data in (program | documents).items()}
    executable = f"{name}/{next(iter(program))}"
    if platform.startswith("win"):
        path = out / f"{name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for member, data in files.items():
                file.writestr(member, data)
    else:
        path = out / f"{name}.tar.gz"
        with tarfile.open(path, "w:gz") as file:
            for member, data in files.items():
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                entry.mode = 0o755 if member == executable else 0o644
                file.addfile(entry, io.BytesIO(data))
    return path


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
