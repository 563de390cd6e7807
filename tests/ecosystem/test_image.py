"""The Dockerfile builds an image that loads a stream as the Kubernetes manifests and docs/deploy.md say."""

import re

import pytest

import image
from processes import ROOT, is_set, run, start
from rows import assert_loaded
from sandbox import Sandbox
from test_deploy import pods, stop_once_drained


def only(pattern, name):
    """What the pattern finds in this file: one text, once or again and again."""
    [found] = set(re.findall(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
    return found


def test_the_dockerfile_names_the_versions_of_cargo_toml():
    assert only(r"^ARG RUST_IMAGE=rust:([\d.]+)-", "Dockerfile") == only('^rust-version = "(.+)"$', "Cargo.toml")
    version = only('^version = "(.+)"$', "Cargo.toml")
    assert only('image.version="(.+?)"', "Dockerfile") == version
    assert only(r"--tag streamduo-loader:(\S+)", "Dockerfile") == version


def test_the_page_and_the_dockerfile_show_the_same_commands():
    assert only("podman build .*", "docs/deploy.md") == only("podman build .*", "Dockerfile")
    assert only("podman run .*", "docs/deploy.md") == only("podman run .*", "Dockerfile")


def test_the_manifests_fit_the_image(manifests):
    requirements = (ROOT / only("^ARG TARGET_REQUIREMENTS=(.+)$", "Dockerfile")).read_text()
    for pod, container in pods(manifests):
        assert container["image"] == only(r"--tag (\S+)", "Dockerfile")
        assert "command" not in container
        context = pod["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == only("^USER (.+)$", "Dockerfile")
        target = container["args"][container["args"].index("--") + 1]
        assert f"{target}==" in requirements


@pytest.fixture
def image_name(request):
    if not is_set("ECOSYSTEM_IMAGE"):
        pytest.skip("ECOSYSTEM_IMAGE=1 builds the image, as root, with podman and debootstrap")
    yield image.build(request.getfixturevalue("clone"))
    # A container goes on if podman is killed.
    run(image.podman("rm", "--all", "--force", "--time=0"))


def test_the_image_loads_all_and_marks_it(image_name, manifests, postgres_server, tmp_path):
    # As a user who is not root, and with nothing that only the build needs.
    shell = podman_run("--entrypoint=sh", image_name, "-c", "id -u; ls /src; command -v cargo pip gcc")
    assert run(shell, code=None).stdout == "65532\n"

    sandbox = Sandbox(250)
    variables = manifests["Secret"]["stringData"] | sandbox.variables | {"TAP_STREAMDUO_STREAMNAME": "orders"}
    variables |= {f"TARGET_POSTGRES_{name.upper()}": value for name, value in postgres_server.target_config.items()}
    variables["TARGET_POSTGRES_DEFAULT_TARGET_SCHEMA"] = "image"
    env_file = tmp_path / "orders.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))

    load, follow = (podman_run(f"--env-file={env_file}", *restrictions(each), image_name, *each["args"]) for _, each in pods(manifests))
    run(load)
    assert sandbox.unread() == 0
    assert_loaded(postgres_server.rows("image.orders"), sandbox.records())

    sandbox.write(f'{{"new": {number}}}' for number in range(30))
    # podman hands SIGTERM on to the tap, which is process 1 in the container.
    stop_once_drained(start(follow), sandbox)
    assert_loaded(postgres_server.rows("image.orders"), sandbox.records())


def podman_run(*words):
    # Not every machine lets podman make a network or raise a limit.
    return image.podman("run", "--rm", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", *words)


def restrictions(container):
    """The restrictions of a container as options of podman. The user is the image's."""
    context = container["securityContext"]
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    drop = [f"--cap-drop={capability}" for capability in context["capabilities"]["drop"]]
    return ["--security-opt=no-new-privileges", "--read-only", "--read-only-tmpfs=false", *drop]
