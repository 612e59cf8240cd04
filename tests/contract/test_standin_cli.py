"""The stand-in's own rules: the lab only, refusals by name, settings files, what a run leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import recorded_programs as P  # noqa: N812 - a table of texts
from tests.contract.replay import Stage, read_stream
from tests.contract.test_standin_replay import KUBECONFIG, configured, deployed, make_stage, new_stack

TWO_CLUSTERS = KUBECONFIG.replace("clusters: [", "clusters: [{name: b, cluster: {server: 'https://b'}}, ").replace(
    "cluster: lab, user", "cluster: b, user"
)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return make_stage(tmp_path)


# -- the lab only --------------------------------------------------------------------------------------------------


def test_another_back_end_is_refused_with_both_sides(stage: Stage) -> None:
    done = stage.run(["stack", "ls"], env={"PULUMI_BACKEND_URL": "s3://production"})

    assert done.returncode == 1
    assert "PULUMI_BACKEND_URL is 's3://production', the lab's is 'file://" in done.stderr
    assert stage.run(["whoami"], env={"PULUMI_BACKEND_URL": None}).returncode == 1


def test_without_a_lab_nothing_runs(stage: Stage) -> None:
    done = stage.run(["stack", "ls"], env={"OPS_STATE": "$ROOT/elsewhere"})

    assert done.returncode == 1
    assert "the lab has not been set up" in done.stderr


@pytest.mark.parametrize(
    ("kubeconfig", "text"),
    [
        (KUBECONFIG.replace("6443", "7443"), "leads to https://127.0.0.1:7443, the lab's is https://127.0.0.1:6443"),
        (
            KUBECONFIG.replace('6443"', '6443", certificate-authority-data: b3RoZXI='),
            "with another certificate authority",
        ),
        (TWO_CLUSTERS, "leads to https://b"),
    ],
    ids=["server", "authority", "context"],
)
def test_another_cluster_is_refused_with_both_sides(kubeconfig: str, text: str, stage: Stage) -> None:
    new_stack(stage)
    (stage.root / "other").write_text(kubeconfig)

    for command in (["preview"], ["up", "--yes"], ["refresh", "--yes"], ["destroy", "--yes"]):
        done = stage.run([*command, "-s", "mx"], env={"KUBECONFIG": "$ROOT/other"})
        assert done.returncode == 1, command
        assert text in done.stderr


def test_a_setting_that_chooses_a_cluster_is_refused(stage: Stage) -> None:
    new_stack(stage)
    stage.must("config", "set", "kubernetes:kubeconfig", "/somewhere", "-s", "mx")

    done = stage.run(["preview", "-s", "mx"])

    assert done.returncode == 1
    assert "the setting kubernetes:kubeconfig chooses a cluster" in done.stderr


# -- refusals by name ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["import", "a:b:C", "x", "y"], "command 'import'"),
        (["stack", "graph", "out"], "command 'stack graph'"),
        (["state", "unprotect"], "command 'state'"),
        (["preview", "-s", "mx", "--save-plan", "x"], "flag '--save-plan' of 'pulumi preview'"),
        (["up", "--plan", "x"], "flag '--plan' of 'pulumi up'"),
        (["up", "--target", "x"], "flag '--target' of 'pulumi up'"),
        (["stack", "output", "--shell"], "flag '--shell' of 'pulumi stack output'"),
        (["preview", "-s", "mx", "--output", "yaml"], "output form 'yaml'"),
    ],
)
def test_what_is_not_there_is_refused_by_name(argv: list[str], named: str, stage: Stage) -> None:
    done = stage.run(argv)

    assert done.returncode == 2
    assert f"error: {named} is not supported by the lab's stand-in for pulumi" in done.stderr


@pytest.mark.parametrize(
    ("program", "named"),
    [
        ('pulumi.CustomResource("aws:s3:Bucket", "b", {})', "provider 'aws'"),
        ('k8s("core/v1:Unsupported", "b", metadata={"name": "b"})', "resource type 'kubernetes:core/v1:Unsupported'"),
        ('pulumi.CustomResource("kubernetes:core/v1:Pod", "b", {}, pulumi.ResourceOptions(import_="x"))', "'import_'"),
        ('pulumi.runtime.invoke("aws:s3:get", {})', "provider 'aws'"),
    ],
)
def test_what_a_program_asks_for_is_refused_by_name(program: str, named: str, stage: Stage) -> None:
    new_stack(stage)
    stage.write_program(P.HEAD + program + "\n")

    done = stage.run(["preview", "-s", "mx"])

    assert done.returncode == 2, done.stdout
    assert named in done.stdout
    assert "not supported by the lab's stand-in" in done.stdout


def test_another_runtime_is_refused(stage: Stage) -> None:
    (stage.folder / "Pulumi.yaml").write_text("name: sample\nruntime: nodejs\n")

    done = stage.run(["stack", "init", "mx"])

    assert done.returncode == 2
    assert "runtime 'nodejs'" in done.stderr


def test_it_names_itself(stage: Stage) -> None:
    assert stage.must("version") == "v3.260.0-lab.standin\n"
    assert "This is not pulumi" in stage.must("--help")


def test_the_launcher_works_from_anywhere_and_through_links(tmp_path: Path) -> None:
    real = Path(__file__).parents[2] / "lab" / "bin" / "pulumi"
    link = tmp_path / "bin" / "pulumi"
    link.parent.mkdir()
    link.symlink_to(real)
    (tmp_path / "json.py").write_text("raise SystemExit('the folder one stands in must not matter')")

    done = subprocess.run([link, "version"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "v3.260.0-lab.standin\n"), done.stderr


# -- settings ------------------------------------------------------------------------------------------------------


def test_edits_keep_comments_and_order(stage: Stage) -> None:
    new_stack(stage)
    file = stage.folder / "Pulumi.mx.yaml"
    file.write_text(f"# ours\n{file.read_text()}config:\n  # why\n  sample:z: a\n  sample:a: '1'\n")

    stage.must("config", "set", "z", "b", "-s", "mx")
    stage.must("config", "set", "new", "0123", "-s", "mx")
    stage.must("config", "rm", "a", "-s", "mx")

    text = file.read_text()
    assert text.startswith("# ours\n")
    assert "  # why\n  sample:z: b\n" in text
    assert 'sample:new: "0123"' in text
    assert "sample:a" not in text


def test_lists_maps_and_scalars_reach_the_program_as_json(stage: Stage) -> None:
    new_stack(stage)
    file = stage.folder / "Pulumi.mx.yaml"
    file.write_text(file.read_text() + "config:\n  sample:list: [1, two]\n  sample:flag: true\n  sample:port: 5432\n")
    stage.write_program(
        "import pulumi\nc = pulumi.Config()\npulumi.export('o', [c.require_object('list'), c.require_bool('flag'), "
        "c.require_int('port'), pulumi.get_organization(), pulumi.get_stack()])\n"
    )
    stage.must("up", "-s", "mx", "--yes", "--skip-preview")

    assert json.loads(stage.must("stack", "output", "o", "--json", "-s", "mx")) == [
        [1, "two"], True, 5432, "organization", "mx"
    ]  # fmt: skip


def test_defaults_and_required_settings_of_the_project(stage: Stage) -> None:
    project = stage.folder / "Pulumi.yaml"
    project.write_text(project.read_text() + "config:\n  size: {default: 3, type: integer}\n  name: {type: string}\n")
    new_stack(stage)
    stage.write_program("import pulumi\npulumi.export('size', pulumi.Config().require_int('size'))\n")

    missing = stage.run(["preview", "-s", "mx"])
    assert missing.returncode == 1
    assert "Stack 'mx' is missing configuration value 'sample:name'" in missing.stderr

    stage.must("config", "set", "name", "x", "-s", "mx")
    assert '"size": 3' not in stage.must("preview", "-s", "mx")
    assert "size: 3" in stage.must("preview", "-s", "mx")


def test_a_setting_given_to_a_preview_is_kept(stage: Stage) -> None:
    new_stack(stage)
    stage.write_program("import pulumi\npulumi.Config().require('k')\n")

    stage.must("preview", "-s", "mx", "--config", "k=v")

    assert stage.must("config", "get", "k", "-s", "mx") == "v\n"


def test_secret_settings_are_hidden_in_everything_a_run_says(stage: Stage) -> None:
    configured(stage)
    stage.write_program(
        P.HEAD
        + 'secret = pulumi.runtime.config.get_config("sample:password")\nprint("printed", secret)\n'
        + 'pulumi.log.warn("logged " + secret)\npulumi.export("url", "pg://" + secret)\n'
    )

    for form in ([], ["--json"], ["--output", "json"], ["--diff"]):
        done = stage.run(["preview", "-s", "mx", *form])
        assert done.returncode == 0
        assert "hunter2" not in done.stdout + done.stderr, form
    assert "printed [secret]" in stage.must("preview", "-s", "mx")


def test_files_are_for_the_owner_only(stage: Stage) -> None:
    deployed(P.BASE)(stage)

    backend = stage.root / "state" / "lab" / "backend"
    for path in [path for path in backend.rglob("*") if path.is_file()]:
        assert path.stat().st_mode & 0o077 == 0, path
        assert b"hunter2" not in path.read_bytes(), path
    assert (stage.folder / "Pulumi.mx.yaml").stat().st_mode & 0o077 == 0


# -- runs ----------------------------------------------------------------------------------------------------------


def test_the_typed_sdk_runs_unmodified(stage: Stage) -> None:
    """``pulumi_kubernetes`` with a parent, an explicit provider, an alias, a transform and a lookup."""
    configured(stage)
    stage.write_program(
        """
import pulumi
import pulumi_kubernetes as k8s

provider = k8s.Provider("mine", namespace="rec-sample")

def label(args):
    if args.type_ == "kubernetes:core/v1:ConfigMap":
        metadata = {**args.props["metadata"], "labels": {"by": "transform"}}
        return pulumi.ResourceTransformResult({**args.props, "metadata": metadata}, args.opts)

pulumi.runtime.register_resource_transform(label)

class Group(pulumi.ComponentResource):
    def __init__(self, name, opts=None):
        super().__init__("home:index:Group", name, None, opts)
        inner = pulumi.ResourceOptions(parent=self)
        self.first = k8s.core.v1.ConfigMap("first", metadata={"name": "first"}, data={"k": "v"}, opts=inner)
        self.register_outputs({"name": self.first.metadata.name})

group = Group("group", pulumi.ResourceOptions(providers=[provider]))
second = k8s.core.v1.ConfigMap("second", metadata={"name": "second"}, data={"uid": group.first.metadata.uid},
                               opts=pulumi.ResourceOptions(depends_on=[group], aliases=[pulumi.Alias(name="old")]))
seen = k8s.core.v1.ConfigMap.get("seen", "first", pulumi.ResourceOptions(depends_on=[second]))
pulumi.export("uid", group.first.metadata.uid)
pulumi.export("seen", seen.data)
"""
    )

    planned = stage.run(["preview", "-s", "mx", "--output", "json"])
    assert planned.returncode in (0, 1)  # what does not exist yet cannot be looked up
    stage.must("up", "-s", "mx", "--yes", "--skip-preview", "--output", "json")
    outputs = json.loads(stage.must("stack", "output", "--json", "-s", "mx"))
    exported = json.loads(stage.must("stack", "export", "-s", "mx"))["deployment"]["resources"]
    states = {state["urn"].rsplit("::", 1)[-1]: state for state in exported}

    assert outputs["seen"] == {"k": "v"}
    assert states["first"]["inputs"]["metadata"]["labels"] == {"by": "transform"}
    assert states["first"]["provider"].startswith("urn:pulumi:mx::sample::pulumi:providers:kubernetes::mine::")
    assert states["second"]["provider"].split("::")[3].startswith("default_")
    assert states["first"]["urn"].split("::")[2] == "home:index:Group$kubernetes:core/v1:ConfigMap"
    assert states["group"]["outputs"] == {"name": "first"}
    assert states["seen"]["external"] is True
    assert json.loads(stage.must("preview", "-s", "mx", "--output", "json"))["summary"] == {"same": 5}
    stage.must("destroy", "-s", "mx", "--yes", "--skip-preview")
    assert json.loads((stage.root / "cluster.json").read_text()) == {}


def test_up_previews_first(stage: Stage) -> None:
    new_stack(stage)
    stage.write_program(P.HEAD + P.NAMESPACE)

    text = stage.must("up", "-s", "mx", "--yes")

    assert text.index("Previewing update (mx):") < text.index("+ 2 to create") < text.index("Updating (mx):")
    assert "+ 2 created" in text


def test_a_run_goes_on_when_nobody_reads(stage: Stage) -> None:
    new_stack(stage)
    stage.write_program(P.HEAD + P.NAMESPACE + P.CONFIG_MAP)
    environment = {**os.environ, **stage.environment}
    with subprocess.Popen(
        [*stage.launcher, "up", "-s", "mx", "--yes", "--skip-preview"],
        cwd=stage.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        complaint = child.stderr.read()

    assert child.returncode == 0, complaint
    assert stage.must("preview", "-s", "mx", "--output", "json").count('"same":3') == 1


def test_a_state_that_cannot_be_written_is_told(stage: Stage) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    new_stack(stage)
    stage.write_program(P.HEAD + P.NAMESPACE)
    folder = stage.root / "state/lab/backend/.pulumi/stacks/sample"
    folder.chmod(0o500)
    try:
        done = stage.run(["up", "-s", "mx", "--yes", "--skip-preview"])
    finally:
        folder.chmod(0o700)

    assert done.returncode == 1
    assert "failed to save the checkpoint of stack 'mx'" in done.stdout + done.stderr


def test_a_lock_taken_away_is_told_and_no_failure(stage: Stage) -> None:
    """The end of scenario 14."""
    new_stack(stage)
    locks = stage.root / "state/lab/backend/.pulumi/locks/organization/sample/mx"
    stage.write_program(
        f"import pathlib\nfor lock in pathlib.Path({str(locks)!r}).glob('*.json'):\n    lock.unlink()\n"
    )

    done = stage.run(["up", "-s", "mx", "--yes", "--skip-preview"])

    assert done.returncode == 0
    assert "error: there was a problem deleting the lock at file://" in done.stderr


def test_the_event_stream_tells_a_failure(stage: Stage) -> None:
    """The order of scenario 21: failed operation, stack as it was, reason, summary, end."""
    configured(stage)
    (stage.root / "cluster.json").write_text(json.dumps({"rec-sample/settings": {"metadata": {"name": "settings"}}}))
    stage.write_program(P.HEAD + P.NAMESPACE + P.CONFIG_MAP)

    done = stage.run(["up", "-s", "mx", "--yes", "--skip-preview", "--json"])

    events = [
        event for event in read_stream(done.stdout) if event.get("diagnosticEvent", {}).get("severity") != "debug"
    ]
    kinds = [next(key for key in event if key.endswith("Event")) for event in events]
    assert done.returncode == 1
    assert kinds[-5:] == ["resOpFailedEvent", "resOutputsEvent", "diagnosticEvent", "summaryEvent", "cancelEvent"]
    assert events[-3]["diagnosticEvent"]["message"] == "update failed\n"
    assert events[-2]["summaryEvent"]["result"] == "failed"
    assert [event["sequence"] for event in read_stream(done.stdout)] == list(
        range(1, len(read_stream(done.stdout)) + 1)
    )


def test_refresh_before_an_update(stage: Stage) -> None:
    deployed(P.HEAD + P.NAMESPACE + P.WEB)(stage)
    cluster = stage.root / "cluster.json"
    objects = json.loads(cluster.read_text())
    del objects["rec-sample/web"]
    cluster.write_text(json.dumps(objects))

    done = json.loads(stage.must("up", "-s", "mx", "--yes", "--skip-preview", "--refresh", "--output", "json"))

    assert done["summary"] == {"create": 1, "same": 2}
    assert "rec-sample/web" in json.loads(cluster.read_text())


@pytest.mark.parametrize("argv", [["version"], ["stack", "output", "-s", "mx", "--json"], ["config", "-s", "mx"]])
def test_light_commands_load_neither_grpc_nor_the_sdk(argv: list[str], stage: Stage) -> None:
    new_stack(stage)
    launcher = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lab.engine", *argv],
        cwd=stage.folder,
        env={**os.environ, **stage.environment, "PYTHONPATH": str(launcher)},
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")}

    assert done.returncode == 0
    assert not loaded & {"grpc", "pulumi", "google.protobuf", "ruamel.yaml", "cryptography.hazmat.primitives"}
