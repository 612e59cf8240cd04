"""`outputs.<service>`: what a stack exports."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import each_service


@each_service()
def outputs(c: Context, names: tuple[str, ...]) -> None:
    """Show the outputs of {service}, secrets masked, with the URLs to open. Changes nothing."""
    from runbooks.run import open_session
    from runbooks.stacks import apply

    with open_session(c, f"outputs.{names[0]}") as session:
        apply.show_outputs(session, session.service(names[0]))
