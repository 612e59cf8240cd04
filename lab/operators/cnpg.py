"""CNPG Clusters: runs a real PostgreSQL server for each, and makes the objects that the operator would make.

Works only while the operator's Deployment in the cluster is available, as in real life; an existing server keeps
running without it. Replicas are objects only: one server a Cluster.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from lab.operators import cnpg_objects, databases, objects, parameters, postgres, sql
from lab.operators.api import Api, ApiError
from lab.operators.databases import OPERATOR
from lab.operators.objects import Object
from lab.operators.parameters import Parameters
from lab.operators.work import Controller, Work, explain
from lab.platform import ports
from runbooks.core.errors import OpsError

log = logging.getLogger("lab.operators.cnpg")

MANAGER = "cloudnative-pg"
FIRST_CLUSTER = ("postgresql", "postgresql-cluster")
"""Namespace and name of the platform's own Cluster: its port is a setting of the lab."""
HEALTHY = "Cluster in healthy state"
SETTING_UP = "Setting up primary"
WAITING = "Waiting for the instances to become active"
Record = dict[str, Any]
"""The content of a server's `cluster.json`."""
PULSE = 1.0
"""Seconds between two checks of a server's process."""
RETRY = 2.0


class NotYetError(OpsError):
    """Something that the Cluster needs does not exist (yet); the text is shown in its status."""


def controllers(api: Api, work: Work, lab_dir: Path) -> dict[str, Controller]:
    api = api.acting_as(MANAGER)
    clusters = Clusters(api, work, lab_dir)
    return {
        "cluster": clusters.reconcile,
        "pulse": clusters.pulse,
        "clusters": clusters.reconcile_all,
        "secret": clusters.reconcile_users_of_secret,
        **databases.controllers(api, lab_dir),
    }


def imposed_port(lab_dir: Path, namespace: str, name: str) -> int | None:
    """The required port of a Cluster's server, from `target.json`, else from LAB_POSTGRES_PORT; None for any."""
    if (namespace, name) != FIRST_CLUSTER:
        return None
    try:
        target = json.loads((lab_dir / "target.json").read_text(encoding="utf-8"))
        port = str(target["settings"]["postgresql"]["postgresql:port"])
    except (OSError, ValueError, KeyError):
        port = os.environ.get("LAB_POSTGRES_PORT", "")
    return int(port) if port.isdigit() else None


@dataclass(frozen=True)
class Clusters:
    """The controller of Clusters, and of the folders of Clusters that are gone."""

    api: Api
    work: Work
    lab_dir: Path

    def reconcile(self, namespace: str, name: str) -> float | None:
        cluster = self.api.get(objects.CLUSTER, namespace, name)
        folder = postgres.folder_of(self.lab_dir, namespace, name)
        if cluster is None:
            return self._forget(namespace, name, folder)
        if objects.is_leaving(cluster):
            postgres.stop(folder / "data")
            return None
        record = self._own(cluster, folder)
        if not self.api.runs(OPERATOR):
            if record.get("bootstrapped"):
                postgres.start(self._place(cluster, record))
            return None
        try:
            return self._bring_up(cluster, record)
        except (NotYetError, postgres.PostgresError, ports.PortTaken) as trouble:
            self._report(cluster, phase=SETTING_UP if not record.get("bootstrapped") else WAITING, trouble=trouble)
            self._mark_pods(cluster, ready=False)
            return RETRY

    def pulse(self, namespace: str, name: str) -> float | None:
        """Check the server's process; ask for a reconcile if it has ended."""
        folder = postgres.folder_of(self.lab_dir, namespace, name)
        record = postgres.read_record(folder)
        if not record:
            return None
        if record.get("bootstrapped") and postgres.read_postmaster(folder / "data") is None:
            self.work.add("cluster", namespace, name)
        return PULSE

    def reconcile_all(self, _namespace: str = "", _name: str = "") -> None:
        """Queue every Cluster, and every folder of a server in this lab."""
        self.work.add_each("cluster", self.api.list(objects.CLUSTER))
        for path in (self.lab_dir / "postgres").glob("*/*"):
            self.work.add("cluster", path.parent.name, path.name)
            self.work.add("pulse", path.parent.name, path.name)

    def reconcile_users_of_secret(self, namespace: str, name: str) -> None:
        """Queue the Clusters that use a Secret."""
        found = self.api.list(objects.CLUSTER, namespace)
        self.work.add_each("cluster", (cluster for cluster in found if name in _secret_names(cluster)))

    def _forget(self, namespace: str, name: str, folder: Path) -> float | None:
        """Stop the server and remove its data, if the API server confirms that the Cluster is gone."""
        if not folder.exists():
            return None
        # Data is removed only then: "not found" alone is also the answer of a server that is starting.
        if not self.api.is_gone(objects.CLUSTER, namespace, name):
            return RETRY
        log.info("cluster %s/%s is gone: its server stops and its data is removed", namespace, name)
        postgres.remove(folder)
        return None

    def _own(self, cluster: Object, folder: Path) -> dict[str, Any]:
        """Read the folder's record, after removing a folder of an older Cluster of the same name."""
        record = postgres.read_record(folder)
        if record and record.get("uid") != cluster["metadata"]["uid"]:
            log.info("%s belongs to an older cluster of that name: removed", folder)
            postgres.remove(folder)
            record = {}
        return record

    def _place(self, cluster: Object, record: Mapping[str, Any]) -> postgres.Place:
        port = imposed_port(self.lab_dir, *objects.key_of(cluster)) or record.get("port") or ports.pick(())
        return postgres.Place(postgres.folder_of(self.lab_dir, *objects.key_of(cluster)), port)

    def _bring_up(self, cluster: Object, record: Record) -> float | None:
        ways = set(cluster["spec"].get("bootstrap") or {}) - {"initdb"}
        if ways:
            raise NotYetError(f"spec.bootstrap.{min(ways)}: the lab only supports initdb")
        if not cluster.get("status"):
            cluster = self._report(cluster, phase=SETTING_UP)
        self._make_surroundings(cluster)
        password = self._superuser_password(cluster, record)
        place = self._place(cluster, record)
        found = self._run_server(cluster, place, record, password)
        sql.keep_superuser_password(place, password)
        if objects.key_of(cluster) == FIRST_CLUSTER:
            postgres.write_pgpass(self.lab_dir / "pgpass", place, password)
        self._bootstrap(cluster, place, record)
        by_role = databases.reconcile_managed(self.api, cluster, place)
        pods = self._make_instances(cluster, place)
        self._mark_pods(cluster, ready=True)
        ready = sum(objects.is_true(pod, "Ready") for pod in pods)
        self._report(cluster, phase=HEALTHY, pods=pods, ready=ready, refused=found.explain(), roles=by_role)
        self.work.add("pulse", *objects.key_of(cluster), after=PULSE)
        return None if ready == len(pods) else RETRY

    # -- objects around the server ------------------------------------------------------------------------------

    def _make_surroundings(self, cluster: Object) -> None:
        managed = (cluster["spec"].get("managed") or {}).get("services") or {}
        disabled = set(managed.get("disabledDefaultServices") or ()) - {"rw"}
        wanted = [cnpg_objects.service(cluster, role) for role in cnpg_objects.SELECTORS if role not in disabled]
        wanted += [cnpg_objects.additional_service(cluster, entry) for entry in managed.get("additional") or ()]
        for service in wanted:
            found = self.api.get(objects.SERVICE, *objects.key_of(service))
            if found is not None and not objects.is_owned_by(found, cluster):
                name = service["metadata"]["name"]
                raise NotYetError(f"refusing to reconcile service: {name}, not owned by the cluster")
            self.api.apply(service)
        for role in disabled:
            self.api.delete(objects.SERVICE, cluster["metadata"]["namespace"], f"{cluster['metadata']['name']}-{role}")
        self.api.apply(cnpg_objects.service_account(cluster))
        for number in _numbers(cluster):
            for claim in cnpg_objects.claims(cluster, number):
                if self.api.create(claim) is None:
                    self._resize(claim)

    def _resize(self, wanted: Object) -> None:
        """Request the size that the Cluster wants; the API server refuses to shrink a claim."""
        meta, requests = wanted["metadata"], wanted["spec"].get("resources")
        found = self.api.get(objects.CLAIM, meta["namespace"], meta["name"])
        if found is None or not requests or found["spec"]["resources"] == requests:
            return
        try:
            self.api.patch(found, {"spec": {"resources": requests}})
        except ApiError as problem:
            if problem.is_passing:
                raise
            before, after = (entry["requests"]["storage"] for entry in (found["spec"]["resources"], requests))
            raise NotYetError(f"can't change existing storage of {meta['name']} from {before} to {after}") from problem

    def _make_instances(self, cluster: Object, place: postgres.Place) -> list[Object]:
        """Make the instances' Pods that are missing, replace those whose template changed, and return all."""
        namespace, pods = cluster["metadata"]["namespace"], []
        for number in _numbers(cluster):
            wanted = cnpg_objects.pod(cluster, number, f"127.0.0.1:{place.port}")
            found = self.api.get(objects.POD, namespace, wanted["metadata"]["name"])
            if found is None:
                found = self.api.create(wanted) or wanted
            elif _differ(found, wanted, cnpg_objects.TEMPLATE) and not objects.is_leaving(found):
                self.api.delete(objects.POD, namespace, wanted["metadata"]["name"])
            elif _differ(found, wanted, cnpg_objects.ADDRESS):
                address = objects.annotation(wanted, cnpg_objects.ADDRESS) or None
                found = self.api.patch(found, {"metadata": {"annotations": {cnpg_objects.ADDRESS: address}}}) or found
            pods.append(found)
        self._scale_down(cluster)
        return pods

    def _scale_down(self, cluster: Object) -> None:
        namespace, name = objects.key_of(cluster)
        kept = {cnpg_objects.instance_name(cluster, number) for number in _numbers(cluster)}
        for kind in (objects.POD, objects.CLAIM):
            for found in self.api.list(kind, namespace, {"cnpg.io/cluster": name, "cnpg.io/instanceName": ""}):
                if found["metadata"]["labels"]["cnpg.io/instanceName"] not in kept:
                    self.api.delete(kind, namespace, found["metadata"]["name"])

    def _mark_pods(self, cluster: Object, *, ready: bool) -> None:
        """Mark the primary's Pod ready when its server is, so that endpoints follow."""
        namespace, _ = objects.key_of(cluster)
        pod = self.api.get(objects.POD, namespace, cnpg_objects.instance_name(cluster, 1))
        if pod is None or (pod.get("status") or {}).get("phase") != "Running" or objects.is_true(pod, "Ready") == ready:
            return
        reason = {} if ready else {"reason": "ContainersNotReady", "message": "PostgreSQL does not answer"}
        state = {"status": "True" if ready else "False"} | reason
        after = objects.with_conditions(pod, *({"type": kind} | state for kind in ("Ready", "ContainersReady")))
        self.api.patch(pod, {"status": {"conditions": after}}, status=True)

    # -- the server ---------------------------------------------------------------------------------------------

    def _superuser_password(self, cluster: Object, record: Record) -> str:
        """The superuser's password: from the Cluster's Secret, generated into one, or known to the operator alone."""
        spec, (namespace, name) = cluster["spec"], objects.key_of(cluster)
        generated = f"{name}-superuser"
        chosen = (spec.get("superuserSecret") or {}).get("name")
        found = self.api.get(objects.SECRET, namespace, chosen or generated)
        if not spec.get("enableSuperuserAccess"):
            if not chosen and found is not None and objects.is_owned_by(found, cluster):
                self.api.delete(objects.SECRET, namespace, generated)
            # The operator needs a login all the same.
            return str(record.setdefault("private_password", postgres.new_password()))
        if found is None and not chosen:
            password = postgres.new_password()
            self.api.create(cnpg_objects.login_secret(cluster, generated, postgres.SUPERUSER, password, "*"))
            return password
        password = objects.decode(found).get("password", "")
        if not password:
            what = f"Secret {chosen or generated}"
            seen = "has no key password" if found else "is not there"
            raise NotYetError(f"{what} in namespace {namespace} {seen}", expected="the superuser's login")
        return password

    def _run_server(self, cluster: Object, place: postgres.Place, record: Record, password: str) -> Parameters:
        """Start the server with the parameters it accepts, or without any if it does not start with them."""
        if record.get("port") not in (None, place.port):
            postgres.stop(place.data)
        record |= {"uid": cluster["metadata"]["uid"], "port": place.port}
        postgres.write_record(place.folder, record)
        if not (place.data / "PG_VERSION").exists():
            log.info("cluster %s/%s: makes its data folder", *objects.key_of(cluster))
            postgres.create(place, (cluster["spec"].get("bootstrap") or {}).get("initdb") or {}, password)
        found = self._parameters(cluster, place, record)
        parameters.apply(place, found)
        try:
            postgres.start(place)
        except postgres.PostgresError as trouble:
            if not found.accepted:
                raise
            # Remembered, or each look would stop at the same start again.
            record["unstartable"] = {"accepted": dict(found.accepted), "reason": explain(trouble)}
            postgres.write_record(place.folder, record)
            found = self._parameters(cluster, place, record)
            parameters.apply(place, found)
            postgres.start(place)
        return found

    def _parameters(self, cluster: Object, place: postgres.Place, record: Mapping[str, Any]) -> Parameters:
        """The requested parameters that the server accepts; none if a start with exactly these has failed."""
        asked = parameters.read_spec(cluster["spec"].get("postgresql") or {})
        found = parameters.sort_out(place, asked)
        failed = record.get("unstartable") or {}
        if not found.accepted or failed.get("accepted") != found.accepted:
            return found
        reasons = dict.fromkeys(found.accepted, f"the server does not start with these: {failed['reason']}")
        return Parameters({}, reasons | dict(found.refused))

    def _bootstrap(self, cluster: Object, place: postgres.Place, record: Record) -> None:
        """Make the application role and database, run the first statements. Then its password follows its Secret."""
        wanted = (cluster["spec"].get("bootstrap") or {}).get("initdb") or {}
        database = wanted.get("database") or "app"
        owner = wanted.get("owner") or database
        password = self._app_password(cluster, wanted, owner, database)
        with sql.connect(place) as connection:
            if not record.get("bootstrapped"):
                sql.ensure_role(connection, {"name": owner, "login": True})
                sql.ensure_database(connection, {"name": database, "owner": owner})
            sql.set_password(connection, owner, password)
        if record.get("bootstrapped"):
            return
        for key, where in (
            ("postInitSQL", "postgres"),
            ("postInitTemplateSQL", "template1"),
            ("postInitApplicationSQL", database),
        ):
            _run_statements(place, where, key, wanted.get(key) or (), record)
        record["bootstrapped"] = True
        postgres.write_record(place.folder, record)

    def _app_password(self, cluster: Object, wanted: Mapping[str, Any], owner: str, database: str) -> str:
        namespace, name = objects.key_of(cluster)
        chosen = (wanted.get("secret") or {}).get("name")
        found = self.api.get(objects.SECRET, namespace, chosen or f"{name}-app")
        if found is None and not chosen:
            password = postgres.new_password()
            self.api.create(cnpg_objects.login_secret(cluster, f"{name}-app", owner, password, database))
            return password
        values = objects.decode(found)
        if not values.get("password"):
            seen = chosen or f"{name}-app"
            raise NotYetError(f"Secret {seen} in namespace {namespace} is missing or has no password")
        if chosen and values.get("username") not in (None, owner):
            raise NotYetError(f"Secret {chosen}: its username is not the owner {owner} of spec.bootstrap.initdb")
        return values["password"]

    # -- status -------------------------------------------------------------------------------------------------

    def _report(
        self,
        cluster: Object,
        *,
        phase: str,
        trouble: OpsError | None = None,
        pods: list[Object] | None = None,
        ready: int = 0,
        refused: str = "",
        roles: Mapping[str, Any] | None = None,
    ) -> Object:
        """Write the status if it differs; return the new Cluster."""
        pods = pods or []
        before = cluster.get("status") or {}
        is_ready = trouble is None and bool(pods) and ready == len(pods)
        if phase == HEALTHY and not is_ready:
            phase = WAITING
        conditions = objects.with_conditions(cluster, *_conditions(is_ready, trouble, refused, cluster))
        after = _status(cluster, pods, ready) if pods else {"instances": cluster["spec"].get("instances", 1)}
        if trouble is not None:
            after["readyInstances"] = 0
        after |= {"phase": phase, "phaseReason": trouble.summary if trouble else "", "conditions": conditions}
        if roles:
            after["managedRolesStatus"] = roles
        written = self.api.update_status(cluster, after)
        if written is cluster:
            return cluster
        if is_ready and not objects.is_true(cluster, "Ready"):
            log.info("cluster %s/%s is ready", *objects.key_of(cluster))
        if trouble is not None and before.get("phaseReason") != trouble.summary:
            log.warning("cluster %s/%s: %s", *objects.key_of(cluster), trouble)
            self.api.warn(written, "PostgresNotRunning", trouble.summary)
        if refused and not any(entry.get("message") == refused for entry in before.get("conditions") or ()):
            self.api.warn(written, "ParametersNotApplied", refused)
        return written


def _numbers(cluster: Object) -> range:
    return range(1, int(cluster["spec"].get("instances", 1)) + 1)


def _differ(found: Object, wanted: Object, annotation: str) -> bool:
    return objects.annotation(found, annotation) != objects.annotation(wanted, annotation)


def _run_statements(place: postgres.Place, database: str, key: str, statements: Sequence[str], record: Record) -> None:
    """Run the statements of one list, each once: after a failure it continues with the one that failed."""
    done = record.setdefault("statements", {})
    for number, statement in enumerate(statements):
        if number < done.get(key, 0):
            continue
        try:
            with sql.connect(place, database) as connection:
                # A user's own statement, not composed from anything.
                connection.execute(statement.encode())
        except psycopg.Error as problem:
            raise NotYetError(f"spec.bootstrap.initdb.{key}[{number}]: {explain(problem)}") from problem
        done[key] = number + 1
        postgres.write_record(place.folder, record)


def _secret_names(cluster: Object) -> set[str]:
    """Every Secret a Cluster's server depends on, its own ones included."""
    spec, name = cluster["spec"], cluster["metadata"]["name"]
    initdb = (spec.get("bootstrap") or {}).get("initdb") or {}
    named = [spec.get("superuserSecret"), initdb.get("secret")]
    named += [role.get("passwordSecret") for role in (spec.get("managed") or {}).get("roles") or ()]
    return {entry["name"] for entry in named if entry} | {f"{name}-superuser", f"{name}-app"}


def _conditions(is_ready: bool, trouble: OpsError | None, refused: str, cluster: Object) -> list[Object]:
    message = "Cluster is Ready" if is_ready else (trouble.summary if trouble else "Cluster Is Not Ready")
    reason = "ClusterIsReady" if is_ready else "ClusterIsNotReady"
    ready = objects.condition(cluster, "Ready", is_ready, reason=reason, message=message)
    reason = "NotSupportedByTheLab" if refused else "AllAccepted"
    taken = objects.condition(cluster, "ParametersApplied", not refused, reason=reason, message=refused)
    return [ready, taken] if is_ready or refused else [ready]


def _status(cluster: Object, pods: list[Object], ready: int) -> Object:
    name = cluster["metadata"]["name"]
    names = [pod["metadata"]["name"] for pod in pods]
    healthy = [pod["metadata"]["name"] for pod in pods if objects.is_true(pod, "Ready")]
    return {
        "instances": len(pods),
        "readyInstances": ready,
        "currentPrimary": names[0],
        "targetPrimary": names[0],
        "instanceNames": names,
        "instancesStatus": {"healthy": healthy},
        "latestGeneratedNode": len(pods),
        "image": cnpg_objects.image_of(cluster),
        "pvcCount": len(pods) * (2 if cluster["spec"].get("walStorage") else 1),
        "writeService": f"{name}-rw",
        "readService": f"{name}-r",
    }
