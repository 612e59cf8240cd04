"""Kubernetes habits shared by the programs: labels, namespaces, and how to wait until something is really ready."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import pulumi
from pulumi_kubernetes.core.v1 import Namespace, Secret

PodSecurity = Literal["privileged", "baseline", "restricted"]


def labels(name: str) -> dict[str, str]:
    """Labels of an object that a program of this repository makes for the component `name`."""
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/part-of": "homelab-ops",
        "app.kubernetes.io/managed-by": "pulumi",
    }


def namespace(
    name: str, *, pod_security: PodSecurity | None = None, opts: pulumi.ResourceOptions | None = None
) -> Namespace:
    """A namespace called exactly `name`; `pod_security` is the level that admission enforces for its pods."""
    enforced: dict[str, str] = {"pod-security.kubernetes.io/enforce": pod_security} if pod_security else {}
    return Namespace(name, opts, metadata={"name": name, "labels": {**labels(name), **enforced}})


def opaque_secret(
    name: str, *, namespace: str, component: str, data: Mapping[str, pulumi.Input[str]], after: pulumi.Resource
) -> Secret:
    """A Secret of our own for `component`, with `data` as texts. Charts are given its name."""
    return Secret(
        name,
        metadata={"name": name, "namespace": namespace, "labels": labels(component)},
        type="Opaque",
        string_data=dict(data),
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )


def wait_annotations(wait_for: str | Sequence[str] | None = None, timeout: int | None = None) -> dict[str, str]:
    """Annotations that tell pulumi when an object is ready, and how many seconds to give it.

    `wait_for`: `condition=Type[=Status]`, `jsonpath={.path}[=value]`, or several of them that must all hold. It
    replaces the provider's own wait for that object; custom resources have none.
    Source: pulumi-kubernetes, provider/pkg/metadata/annotations.go.
    """
    conditions = [wait_for] if isinstance(wait_for, str) else list(wait_for or ())
    for condition in conditions:
        if not condition.startswith(("condition=", "jsonpath={")):
            raise ValueError(
                f"cannot wait for {condition!r}: expected condition=Type[=Status] or jsonpath={{.path}}[=value]"
            )
    annotations = {}
    if conditions:
        annotations["pulumi.com/waitFor"] = conditions[0] if len(conditions) == 1 else json.dumps(conditions)
    if timeout is not None:
        annotations["pulumi.com/timeoutSeconds"] = str(timeout)
    return annotations


def add_wait_annotation(
    kind: str, *, wait_for: str | Sequence[str] | None = None, timeout: int | None = None
) -> pulumi.ResourceTransform:
    """A transform that makes pulumi wait for objects of `kind`.

    It goes into `ResourceOptions(transforms=[…])`. Given to a chart it reaches the objects the chart makes, which the
    older `transformations` do not. For `wait_for` see `wait_annotations`; without it the provider's own wait stays and
    only the `timeout` (seconds) changes.
    """
    return _annotate(kind, wait_annotations(wait_for, timeout))


def keep_on_destroy(kind: str) -> pulumi.ResourceTransform:
    """A transform that leaves objects of `kind` in the cluster when their stack is destroyed or stops having them.

    The next installation finds them there, written by another field manager. The annotation given here lets it take
    them over, also where a newer chart has other contents for them: a provider before 4.29 does so on every create, a
    newer one with `kubernetes:upsertExistingObjects`, which a person sets for that one deployment.
    """
    return _annotate(kind, {"pulumi.com/patchForce": "true"}, pulumi.ResourceOptions(retain_on_delete=True))


def protect_objects(kind: str) -> pulumi.ResourceTransform:
    """A transform that makes pulumi refuse to delete a chart's objects of `kind`, as `protect` does for its own."""
    return _annotate(kind, {}, pulumi.ResourceOptions(protect=True))


def _annotate(
    kind: str, added: Mapping[str, str], options: pulumi.ResourceOptions | None = None
) -> pulumi.ResourceTransform:
    """Of a chart's objects only the data of a Secret arrives as an output: metadata can be read as it is."""

    def transform(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        if args.type_.rpartition(":")[2] != kind:
            return None
        metadata = cast(Mapping[str, Any], args.props.get("metadata") or {})
        annotations = {**(metadata.get("annotations") or {}), **added}
        props = {**args.props, "metadata": {**metadata, "annotations": annotations}}
        return pulumi.ResourceTransformResult(props=props, opts=pulumi.ResourceOptions.merge(args.opts, options))

    return transform


def fill_secret(name: str, data: Mapping[str, pulumi.Output[str]]) -> pulumi.ResourceTransform:
    """A transform that puts `data` into the Secret `name` of a chart, in place of what the chart's values say there.

    For charts that take a token from their values only: they are given some word, and pulumi puts the token in.
    Fails with a `pulumi.RunError` when the chart's Secret has no such key, for then the word would stay in use.
    """

    def transform(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        metadata = cast(Mapping[str, Any], args.props.get("metadata") or {})
        if args.type_.rpartition(":")[2] != "Secret" or metadata.get("name") != name:
            return None
        # The engine hands over a Secret's data as an output, which a preview may not know yet.
        given = pulumi.Output.from_input(_without_secret_mark(args.props.get("data")))
        filled = pulumi.Output.all(given, pulumi.Output.all(**data)).apply(lambda both: _filled(name, *both))
        props = {**args.props, "data": pulumi.Output.secret(filled)}
        return pulumi.ResourceTransformResult(props=props, opts=args.opts)

    return transform


def _filled(name: str, given: Mapping[str, str] | None, data: Mapping[str, str]) -> dict[str, str]:
    if missing := sorted(set(data) - set(given or {})):
        raise pulumi.RunError(f"the chart's Secret {name} has no key {', '.join(missing)} to fill; it has another form")
    return {**(given or {}), **{key: base64.b64encode(text.encode()).decode() for key, text in data.items()}}


SECRET_MARK = "4dabf18193072939515e22adb298388d"  # noqa: S105 - how pulumi marks a value on the wire
"""Source: pulumi/pulumi, sdk/go/common/resource/properties.go."""


def _without_secret_mark(value: Any) -> Any:
    """Where an engine marks secrets instead of making outputs of them, the SDK leaves the mark in place."""
    return value["value"] if isinstance(value, Mapping) and SECRET_MARK in value else value
