"""The image of the Dockerfile, built and run with podman. Its base images are made from Debian's packages and this machine's Rust, so
that no container registry is needed."""

import os
import pathlib
import re
import shutil
import tempfile

import pytest

from processes import KEPT, ROOT, environment, is_set, run

# The images stay here between runs, so that only the first one makes the base images.
STORAGE = KEPT / "image"

PROGRAMS = ["podman", "runc", "debootstrap"]

# Enough to build the tap, and as little as the official image of Debian has.
PACKAGES = {"RUST_IMAGE": "ca-certificates,gcc,libc6-dev", "DEBIAN_IMAGE": "ca-certificates"}
LEFT_OUT = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt", "var/lib/apt/lists"]


def podman(*words):
    # runc, since crun refuses a machine with both versions of cgroups.
    driver = "overlay" if "\toverlay\n" in pathlib.Path("/proc/filesystems").read_text() else "vfs"
    storage = [f"--root={STORAGE / 'storage'}", f"--runroot={STORAGE / 'run'}", f"--storage-driver={driver}"]
    return ["podman", *storage, "--cgroup-manager=cgroupfs", "--runtime=runc", *words]


def build(clone):
    """Builds the image from a clone of the repository, and returns its name."""
    if os.geteuid() != 0:
        pytest.skip("podman and debootstrap run as root here")
    if is_set("ECOSYSTEM_INSTALL") and not all(map(shutil.which, PROGRAMS)):
        apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
        run([*apt, "update"], code=None)
        run([*apt, "install", "--no-install-recommends", *PROGRAMS], code=None)
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}: ECOSYSTEM_INSTALL=1 installs it from Debian")
    bases = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", (clone / "Dockerfile").read_text(), re.MULTILINE))
    assert bases.keys() == PACKAGES.keys()
    arguments = [f"--build-arg={argument}={make_base(argument, name)}" for argument, name in bases.items()]
    image = "localhost/streamduo-loader:check"
    # chroot, since not every machine lets podman make a network.
    run(podman("build", "--isolation=chroot", "--network=host", "--quiet", *arguments, f"--tag={image}", clone))
    # The images of the stages that only the build needs.
    run(podman("image", "prune", "--force"))
    return image


def make_base(argument, name):
    """Makes a base image that stands for an official one, unless there is one already. Returns its name."""
    image = f"localhost/{name}"
    if run(podman("image", "exists", image), code=None).returncode == 0:
        return image
    STORAGE.mkdir(parents=True, exist_ok=True)
    suite = re.search("bookworm", name)[0]
    with tempfile.TemporaryDirectory(dir=STORAGE) as folder:
        root = pathlib.Path(folder) / "root"
        run(["debootstrap", "--variant=minbase", f"--include={PACKAGES[argument]}", suite, root])
        # The CAs that this machine trusts: it may reach the package indexes through a proxy of its own.
        shutil.copytree("/usr/local/share/ca-certificates", root / "usr/local/share/ca-certificates", dirs_exist_ok=True)
        run(["chroot", root, "update-ca-certificates"])
        for path in LEFT_OUT:
            shutil.rmtree(root / path)
            (root / path).mkdir()
        changes = ["--change=CMD bash"]
        if argument == "RUST_IMAGE":
            changes.append(f"--change=ENV PATH={install_rust(name, root)}:/usr/sbin:/usr/bin:/sbin:/bin")
        archive = pathlib.Path(folder) / "root.tar"
        run(["tar", "--create", f"--file={archive}", f"--directory={root}", "--one-file-system", "."])
        run(podman("import", "--quiet", *changes, archive, image))
    return image


def install_rust(name, root):
    """Copies this machine's Rust, without its documentation. Returns the folder of its programs."""
    version = re.search(r"rust:([\d.]+)", name)[1]
    used = run(["rustc", "--version"], cwd=ROOT, env=environment()).stdout
    if not used.startswith(f"rustc {version}."):
        pytest.skip(f"the image needs Rust {version}, and here is {used.strip()}")
    sysroot = pathlib.Path(run(["rustc", "--print", "sysroot"], cwd=ROOT, env=environment()).stdout.strip())
    place = pathlib.Path("usr/local/rust")
    shutil.copytree(sysroot / "lib", root / place / "lib", symlinks=True)
    (root / place / "bin").mkdir()
    for program in ["cargo", "rustc"]:
        shutil.copy2(sysroot / "bin" / program, root / place / "bin")
    return f"/{place}/bin"
