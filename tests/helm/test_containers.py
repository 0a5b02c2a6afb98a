"""The image and the cluster of compose.yaml, as far as they can be checked without an engine that runs them."""
import importlib.util
import os
import pathlib
import re
import shutil

import pytest
import yaml

from conftest import BIN, BINARY, CHART, ROOT, run

COMPOSE = ROOT / "compose.yaml"
# Docker Compose itself: the package's own command forgets how it ended.
DOCKER_COMPOSE = pathlib.Path(importlib.util.find_spec("compose").origin).with_name("docker-compose")
# Debian keeps servers where the path of an ordinary user does not look.
HAPROXY = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")


def compose(*arguments, **environment):
    """docker compose, without what a developer's .env says."""
    command = (DOCKER_COMPOSE, "--file", COMPOSE, "--env-file", os.devnull, *arguments)
    return run(*command, env={"PATH": os.environ["PATH"], **environment})


@pytest.fixture(scope="module")
def cluster():
    """compose.yaml as docker compose understands it."""
    said = compose("config", JWT_SECRET="s3cret")
    assert said.returncode == 0, said.stderr
    return yaml.safe_load(said.stdout)


def dockerfile():
    return (ROOT / "Dockerfile").read_text()


def test_the_dockerfile_is_linted():
    said = run(BIN / "hadolint", "--failure-threshold", "info", ROOT / "Dockerfile")
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_image_is_pinned_locked_and_not_root():
    text = dockerfile()
    for image in re.findall(r"^ARG \w+_IMAGE=(.*)$", text, re.M):
        assert re.search(r":\d+\.\d+\.\d+-", image), image
    assert text.count("npm ci") == 2 and "npm install" not in text
    assert re.search(r"cargo build --locked --release", text)
    last = text[text.rindex("\nFROM "):]
    assert re.search(r"^USER (\d+):\1$", last, re.M) and 'ENTRYPOINT ["/usr/local/bin/roomcast"]' in last
    uid = re.search(r"^USER (\d+)", last, re.M)[1]
    assert f"(list {uid})" in (CHART / "templates/_pod.tpl").read_text()


def test_the_image_of_the_load_test_holds_what_its_manifests_ask_for():
    stage = dockerfile().split(" AS load\n")[1].split("\nFROM ")[0]
    assert 'ENTRYPOINT ["/usr/local/bin/roomcast-load"]' in stage and "USER 65532:65532" in stage and "EXPOSE 7700" in stage


@pytest.mark.skipif(os.geteuid() != 0, reason="the step gives a folder to another user and changes the root")
def test_the_image_holds_all_that_the_program_needs(tmp_path):
    step = re.search(r"^RUN (ldd (?:.*\\\n)*.*)", dockerfile(), re.M)[1]
    step = step.replace("\\\n", " ").replace("/tmp/", f"{tmp_path}/").replace("/image", f"{tmp_path}/image")
    assert "chroot" in step
    program = tmp_path / "image/usr/local/bin/roomcast"
    program.parent.mkdir(parents=True)
    shutil.copy(os.path.realpath(BINARY), program)
    said = run("sh", "-ec", step)
    # Its last part runs the program as nobody, with that folder as its whole world.
    assert said.returncode == 0 and said.stdout.startswith("roomcast "), said.stderr


def test_the_compiler_is_new_enough():
    wanted = re.search(r'rust-version = "(\d+)\.(\d+)"', (ROOT / "Cargo.toml").read_text())
    has = re.search(r"RUST_IMAGE=rust:(\d+)\.(\d+)", dockerfile())
    assert tuple(map(int, has.groups())) >= tuple(map(int, wanted.groups()))


def test_versions_agree(cluster):
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version
    assert f"ARG VERSION={version}\n" in dockerfile()
    assert cluster["services"]["node-a"]["image"] == f"roomcast:{version}"


def test_only_what_the_dockerfile_copies_gets_into_a_build():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split("\n") if line.startswith("!")}
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile(), re.M):
        copied |= set(line.split()[:-1])
    assert copied == allowed
    for path in copied:
        assert (ROOT / path).exists(), path


def test_the_cluster_asks_for_its_secret():
    said = compose("config", "--quiet")
    assert said.returncode != 0 and "JWT_SECRET" in said.stderr


def test_the_cluster_has_the_settings_that_roomcast_knows(cluster, settings):
    services = cluster["services"]
    assert len([name for name in services if name.startswith("node-")]) == 3
    assert services["worker"]["deploy"]["replicas"] == 2
    for name, service in services.items():
        if service["image"].startswith("roomcast:"):
            assert service["environment"].keys() <= settings.keys(), name
            assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["user"] != "0", name
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"]), name


def test_nodes_have_the_time_to_drain(cluster):
    for name in ("node-a", "node-b", "node-c"):
        service = cluster["services"][name]
        drain = sum(int(service["environment"][f"ROOMCAST_DRAIN_{part}"].removesuffix("s")) for part in ("NOTICE", "SPREAD"))
        assert int(service["stop_grace_period"].removesuffix("s")) >= drain + 20


def test_haproxy_takes_its_configuration_and_knows_every_node(cluster):
    path = ROOT / "deploy/compose/haproxy.cfg"
    said = run(HAPROXY, "-c", "-f", path)
    # Only Docker's name server knows the nodes.
    warnings = [line for line in said.stderr.split("\n") if "WARNING" in line and "could not resolve address 'node-" not in line]
    assert (said.returncode, warnings) == (0, []), said.stderr
    nodes = {name for name in cluster["services"] if name.startswith("node-")}
    assert set(re.findall(r"^ +server (\S+) \1:8080 cookie", path.read_text(), re.M)) == nodes
    trusted = cluster["services"]["node-a"]["environment"]["TRUSTED_PROXIES"]
    assert trusted == cluster["services"]["haproxy"]["networks"]["roomcast"]["ipv4_address"] + "/32"


def test_prometheus_takes_its_configuration_and_knows_every_node(cluster):
    path = ROOT / "deploy/compose/prometheus.yml"
    said = run("promtool", "check", "config", path)
    assert said.returncode == 0, said.stdout + said.stderr
    job = yaml.safe_load(path.read_text())["scrape_configs"][0]
    targets = {target.split(":")[0] for target in job["static_configs"][0]["targets"]}
    assert targets == {name for name in cluster["services"] if name.startswith("node-")}


def test_files_that_containers_mount_are_there(cluster):
    for service in cluster["services"].values():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert pathlib.Path(volume["source"]).exists(), volume["source"]
