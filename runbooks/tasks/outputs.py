"""`outputs.<service>`: what a stack exports."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import each_service


@each_service()
def outputs(c: Context, names: tuple[str, ...]) -> None:
    """Show the outputs of {service}, secrets masked, with the URLs to open. Changes nothing."""
    from runbooks.run import open_session
    from runbooks.services import SERVICES
    from runbooks.stacks import apply
    from runbooks.stacks.order import by_name

    with open_session(c, f"outputs.{names[0]}") as session:
        for name in names:
            apply.show_outputs(session, by_name(SERVICES)[name])
