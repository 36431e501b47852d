"""What Dockerfile, compose.yaml and the Kubernetes manifests promise. `.ci/container` builds and runs them."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.security.notes import new_key
from app.security.passwords import MEMORY_KIB
from app.settings import PREFIX, Settings, load_settings

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy" / "kubernetes"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
KUBECTL = shutil.which("kubectl")
FOREIGN = {"PYTHON_CPU_COUNT"}  # Python's own
GRACE_SECONDS = 10  # what the server gives to requests and streams

# Files that manifests name, with contents as an operator would give them.
CONTENTS = {
    "database_url": "postgresql://rota_server:secret@postgres:5432/rota",
    "migration_database_url": "postgresql://rota_migration:secret@postgres:5432/rota",
    "secrets": "0123456789abcdef0123456789abcdef",
    "rota_secrets": "0123456789abcdef0123456789abcdef",
    "signing_key": new_key(),
    "audit_signing_key": new_key(),
}


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


OBJECTS = [document for _, document in documents() if document["kind"] != "Kustomization"]
WORKLOADS = {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] in {"Deployment", "Job"}}


def of(kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in OBJECTS if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for name, workload in WORKLOADS.items():
        for container in [*pod(workload).get("initContainers", []), *pod(workload)["containers"]]:
            yield f"{name}/{container['name']}", container, pod(workload)


CONTAINERS = [pytest.param(container, spec, id=name) for name, container, spec in containers()]
SERVICES = [pytest.param(service, id=name) for name, service in COMPOSE["services"].items()]
OF_ROTA = {name: service for name, service in COMPOSE["services"].items() if "ROTA_IMAGE" in service["image"]}


def settings_of(environment: dict[str, str], folder: Path, process: pytest.MonkeyPatch) -> Settings:
    """What the product makes of an environment; files hold what an operator would put there."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        process.delenv(name)
    for name, value in environment.items():
        assert name.startswith(PREFIX) or name in FOREIGN, f"{name} is nobody's"
        if name.endswith("_FILE"):
            file = folder / Path(value).name
            file.write_text(CONTENTS[file.name] + "\n")
            process.setenv(name, str(file))
        else:
            process.setenv(name, re.sub(r"\$\{\w+:-(.*)}", r"\1", value))
    return load_settings()


def mebibytes(text: str) -> int:
    assert text.endswith(("Mi", "Gi"))
    return int(text[:-2]) * (1024 if text.endswith("Gi") else 1)


# The image


def stages() -> list[list[tuple[str, str]]]:
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    found: list[list[tuple[str, str]]] = []
    for line in joined.splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                found.append([])
            if found:
                found[-1].append((word, rest.strip()))
    return found


def test_the_image_is_made_in_two_stages_of_one_short_name() -> None:
    """The second stage takes the environment from the first, and nothing else; the base is an argument."""
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.13-slim$", DOCKERFILE, re.MULTILINE)
    build, final = stages()
    assert build[0] == ("FROM", "${PYTHON_IMAGE} AS build")
    assert final[0] == ("FROM", "${PYTHON_IMAGE}")
    assert [rest for word, rest in final if word in {"COPY", "ADD"}] == ["--from=build /opt/rota /opt/rota"]
    assert not [rest for word, rest in build if word == "ADD"]


def test_what_is_installed_is_hashed_and_the_index_is_a_secret() -> None:
    """Every `pip install` takes hashes or no index at all; an index comes by a mounted secret and stays in no layer."""
    runs = [rest for word, rest in stages()[0] if word == "RUN"]
    installs = [part for run in runs for part in run.split("&&") if re.search(r"pip .*\b(install|wheel)\b", part)]
    assert len(installs) == 4
    assert all("--require-hashes" in part or "--no-index" in part for part in installs)
    assert "--mount=type=secret,id=pip,target=/etc/pip.conf" in runs[0]
    assert not re.search(r"index-url|https?://|PIP_INDEX|PIP_EXTRA", DOCKERFILE)


def test_the_server_runs_as_nobody_and_gets_its_signals() -> None:
    """A numeric user, exec form everywhere (a shell would keep SIGTERM to itself), the health check in Python."""
    final = dict(stages()[1])
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", final["USER"])
    assert json.loads(final["ENTRYPOINT"]) == ["rota"]
    assert json.loads(final["CMD"]) == ["serve"]
    assert final["STOPSIGNAL"] == "SIGTERM"
    check = json.loads(final["HEALTHCHECK"].partition(" CMD ")[2])
    assert check == ["python3", "-m", "app.observability.alive"]
    assert "PYTHONDONTWRITEBYTECODE=1" in final["ENV"]
    assert {name.partition("=")[0] for name in final["ENV"].split()} & {"ROTA_SECRETS", "ROTA_DATABASE_URL"} == set()


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    """Everything is left out but what the Dockerfile names, so no secret and no test is sent to whoever builds."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = {name for word, rest in stages()[0] if word == "COPY" for name in rest.split()[:-1]}
    assert let_in == copied
    assert all((ROOT / name).exists() for name in copied)
    assert "deploy/compose/secrets*/" in (ROOT / ".gitignore").read_text().split()


# compose.yaml


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_confined(service: dict[str, Any]) -> None:
    """Read-only root, no capability, no new privileges, no privilege asked for by another name."""
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "pid", "ipc", "network_mode", "devices"}
    assert all(mount.startswith(("/tmp:", "/tmp")) for mount in service["tmpfs"])  # noqa: S108 - in the container
    assert "user" in service or service["image"] == "${ROTA_IMAGE:-rota:latest}"  # its own user, or the image's
    assert service["restart"] in {"unless-stopped", "on-failure:5"}
    assert re.fullmatch(r"\$\{\w+:-[a-z]+:[\w.]+}", service["image"]), "a short name, replaceable"


@pytest.mark.parametrize("service", OF_ROTA.values(), ids=OF_ROTA)
def test_compose_names_settings_only_and_no_secret(
    service: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product reads each environment without complaint; what is secret is a file that the service gets."""
    environment = service["environment"]
    settings_of(environment, tmp_path, monkeypatch)
    files = {Path(value).name for name, value in environment.items() if name.endswith("_FILE")}
    assert files == set(service["secrets"])
    assert files <= set(COMPOSE["secrets"])
    assert service["stop_grace_period"] == "30s"
    assert not [name for name in environment if name.endswith(("_SECRETS", "_URL", "_KEY"))]


def test_the_replicas_are_two_behind_nginx_and_wait_for_the_migration() -> None:
    """They are alike but for their address, which nginx knows; only nginx is reached from outside."""
    services = COMPOSE["services"]
    first, second = services["rota-a"], services["rota-b"]
    assert {**first, "networks": None} == {**second, "networks": None}
    addresses = [one["networks"]["inner"]["ipv4_address"] for one in (first, second)]
    assert services["nginx"]["extra_hosts"] == [
        f"{name}:{address}" for name, address in zip(("rota-a", "rota-b"), addresses, strict=True)
    ]
    configuration = (ROOT / "deploy" / "compose" / "nginx.conf").read_text()
    assert re.findall(r"server (rota-\w):8000", configuration) == ["rota-a", "rota-b"]
    assert first["command"] == ["serve"]
    assert first["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["migrate"]["command"] == ["db", "upgrade"]
    assert services["migrate"]["depends_on"] == {"logins": {"condition": "service_completed_successfully"}}
    assert services["nginx"]["depends_on"]["rota-a"] == {"condition": "service_healthy"}
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    assert COMPOSE["networks"]["inner"]["internal"] is True
    assert services["postgres"]["image"] == "${POSTGRES_IMAGE:-postgres:18}"


def test_only_the_migration_knows_the_login_that_may_migrate() -> None:
    """And only the sealer the signing key; the superuser's password stays with the database."""
    holders: dict[str, set[str]] = {}
    for name, service in COMPOSE["services"].items():
        for secret in service.get("secrets", []):
            holders.setdefault(secret, set()).add(name)
    assert holders["migration_database_url"] == {"migrate"}
    assert holders["audit_signing_key"] == {"sealer"}
    assert holders["postgres_password"] == {"postgres", "logins"}
    logins = (ROOT / "deploy" / "compose" / "logins.sql").read_text()
    assert re.findall(r"GRANT (.*) TO rota_server;", logins) == ["rota_app"]


def test_the_secrets_are_made_once(tmp_path: Path) -> None:
    """As many files as compose.yaml names but the signing key, closed to others, and a second run changes nothing."""
    shutil.copy(ROOT / "deploy" / "compose" / "make-secrets", tmp_path)
    subprocess.run([tmp_path / "make-secrets"], check=True, capture_output=True)
    made = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert set(made) == set(COMPOSE["secrets"]) - {"audit_signing_key"}
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    assert made["server_password"] in made["database_url"]
    assert made["migration_password"] in made["migration_database_url"]
    assert len(set(made.values())) == len(made)
    again = subprocess.run([tmp_path / "make-secrets"], check=False, capture_output=True)
    assert again.returncode == 4
    assert {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()} == made


# Kubernetes


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_kubernetes_knows_every_field(version: str) -> None:
    """All objects hold to Kubernetes' own schemas; an unknown member is an error."""
    assert len(OBJECTS) == 11
    for one in OBJECTS:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", ["", "finish"])
def test_kustomize_builds_them(folder: str) -> None:
    """What is applied is what is tested: no namespace, no secret, and the settings under a name that follows them."""
    command = [KUBECTL or "", "kustomize", str(MANIFESTS / folder)]
    built = list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    for one in built:
        kubernetes_validate.validate(one, "1.37", strict=True)
        assert "namespace" not in one["metadata"]
        assert one["kind"] != "Secret"
    if folder:
        (job,) = built
        assert job["metadata"]["name"] == "rota-migration-finish"
        assert pod(job)["containers"][0]["args"] == ["db", "upgrade"]
        return
    assert {one["kind"] for one in built} >= {
        "Deployment", "Job", "Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap",
    }  # fmt: skip
    (settings,) = [one["metadata"]["name"] for one in built if one["kind"] == "ConfigMap"]
    (server,) = [one for one in built if one["kind"] == "Deployment" and one["metadata"]["name"] == "rota"]
    assert pod(server)["containers"][0]["envFrom"] == [{"configMapRef": {"name": settings}}]
    assert settings != "rota-settings"


@pytest.mark.parametrize(("container", "spec"), CONTAINERS)
def test_every_container_is_confined(container: dict[str, Any], spec: dict[str, Any]) -> None:
    """The restricted pod security standard, a read-only root, bounded memory; /tmp is memory, secrets are files."""
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False, "a service named rota would set ROTA_PORT"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    mounted = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounted["tmp"]["mountPath"] == "/tmp"  # noqa: S108 - in the container
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["tmp"]["emptyDir"]["medium"] == "Memory"
    for name, mount in mounted.items():
        if "secret" in volumes[name]:
            assert mount["readOnly"] is True
            assert volumes[name]["secret"]["defaultMode"] == 0o440


@pytest.mark.parametrize(("container", "spec"), CONTAINERS)
def test_every_variable_is_a_setting_and_every_file_is_mounted(
    container: dict[str, Any], spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product reads each container's environment; each file in it is a key of a secret that the example names."""
    given = [one.partition("=") for one in (MANIFESTS / "rota.env").read_text().splitlines()]
    environment = {name: value for name, _, value in given} if "envFrom" in container else {}
    secrets = {one["metadata"]["name"]: set(one["stringData"]) for one in OBJECTS if one["kind"] == "Secret"}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    files = {
        f"{mount['mountPath']}/{key}"
        for mount in container["volumeMounts"]
        if "secret" in volumes[mount["name"]]
        for key in secrets[volumes[mount["name"]]["secret"]["secretName"]]
    }
    for entry in container["env"]:
        if "value" in entry:
            environment[entry["name"]] = entry["value"]
            assert not entry["name"].endswith("_FILE") or entry["value"] in files, entry["name"]
        else:
            assert entry["name"] in FOREIGN
    assert settings_of(environment, tmp_path, monkeypatch).secret_list or container["name"] == "migration"


def test_the_example_holds_no_value() -> None:
    """Nor does any other manifest."""
    example = [one for one in OBJECTS if one["kind"] == "Secret"]
    assert {value for one in example for value in one["stringData"].values()} == {""}
    listed = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())["resources"]
    assert "secret.example.yaml" not in listed
    assert all((MANIFESTS / name).exists() for name in listed)


def test_a_roll_out_never_has_fewer_replicas_than_before() -> None:
    """Two, spread; a new one first, and only when the schema is there and it is ready."""
    server = of("Deployment", "rota")
    assert server["spec"]["replicas"] == 2
    assert server["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    spread = pod(server)["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    (schema,) = pod(server)["initContainers"]
    assert schema["args"][:2] == ["db", "wait"]
    assert server["spec"]["progressDeadlineSeconds"] > int(schema["args"][3])
    budget = of("PodDisruptionBudget", "rota")["spec"]
    assert budget["maxUnavailable"] == 1
    labels = server["spec"]["template"]["metadata"]["labels"]
    for selector in (server["spec"]["selector"], budget["selector"], *(one["labelSelector"] for one in spread)):
        assert selector["matchLabels"] == labels
    assert of("Service", "rota")["spec"]["selector"] == labels


def test_probes_ask_what_they_are_for() -> None:
    """A database that is away takes a pod out of service and kills none; requests under way have time to finish."""
    (server,) = pod(of("Deployment", "rota"))["containers"]
    assert server["livenessProbe"]["httpGet"] == server["startupProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert server["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert server["ports"] == [{"name": "http", "containerPort": 8000}]
    before = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before + GRACE_SECONDS < pod(of("Deployment", "rota"))["terminationGracePeriodSeconds"]
    (port,) = of("Service", "rota")["spec"]["ports"]
    assert port["targetPort"] == "http"


def test_the_hasher_fits_into_the_memory() -> None:
    """As many hashes at once as the limit has processors, beside 256 MiB for the rest; in compose.yaml likewise."""
    (server,) = pod(of("Deployment", "rota"))["containers"]
    limits = server["resources"]["limits"]
    (count,) = [entry for entry in server["env"] if entry["name"] == "PYTHON_CPU_COUNT"]
    assert count["valueFrom"]["resourceFieldRef"] == {
        "containerName": "server", "resource": "limits.cpu", "divisor": "1",
    }  # fmt: skip
    assert mebibytes(limits["memory"]) >= 256 + int(limits["cpu"]) * MEMORY_KIB / 1024
    replica = COMPOSE["services"]["rota-a"]
    hashes = int(replica["environment"]["PYTHON_CPU_COUNT"])
    assert mebibytes(replica["mem_limit"].replace("m", "Mi")) >= 256 + hashes * MEMORY_KIB / 1024


def test_the_network_is_shut_but_for_the_proxy_the_database_and_names() -> None:
    """In: the proxy's namespace to the server's port. Out: PostgreSQL and DNS. Every pod is under the policy."""
    every, server = of("NetworkPolicy", "rota")["spec"], of("NetworkPolicy", "rota-server")["spec"]
    assert every["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in every
    ports = [sorted({port["port"] for port in rule["ports"]}) for rule in every["egress"]]
    assert ports == [[53], [5432]]
    assert all(rule["to"] for rule in every["egress"])
    (rule,) = server["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}]
    assert rule["ports"] == [{"protocol": "TCP", "port": "http"}]
    for workload in WORKLOADS.values():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert every["podSelector"]["matchLabels"].items() <= labels.items()
        assert (server["podSelector"]["matchLabels"] == labels) == (workload["metadata"]["name"] == "rota")


def test_only_the_job_may_migrate_and_only_the_sealer_sign() -> None:
    """By the secrets that each pod mounts."""
    mounted = {
        name: {volume["secret"]["secretName"] for volume in pod(workload)["volumes"] if "secret" in volume}
        for name, workload in WORKLOADS.items()
    }
    assert mounted == {
        "rota": {"rota-server"},
        "rota-migration": {"rota-migration"},
        "rota-sealer": {"rota-server", "rota-sealer"},
    }
    assert pod(WORKLOADS["rota-migration"])["containers"][0]["args"][:2] == ["db", "upgrade"]
    assert pod(WORKLOADS["rota-sealer"])["containers"][0]["args"] == ["audit", "seal", "--watch"]
    assert WORKLOADS["rota-sealer"]["spec"]["strategy"] == {"type": "Recreate"}
