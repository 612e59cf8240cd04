"""`verify.<service>`: run a service's checks, with evidence, in the order that a connection takes."""

from __future__ import annotations

from typing import Any

from runbooks.collection import each_service, task_name


@each_service(everything=True)
def verify(c: Any, names: tuple[str, ...]) -> None:
    """Prove that {service} works, check by check with evidence. Changes nothing."""
    from runbooks.checks.of_service import verify_each
    from runbooks.core.errors import VerificationFailed
    from runbooks.run import open_session
    from runbooks.stacks.preparation import is_deployed

    with open_session(c, task_name("verify", names)) as session:
        wanted = [service for service in session.services if service.name in names]
        # A single named service is checked even if it is not deployed: its checks then name what is missing.
        if len(names) > 1:
            absent = [service.name for service in wanted if not is_deployed(session, session.stack(service))]
            wanted = [service for service in wanted if service.name not in absent]
            if not wanted:
                raise VerificationFailed(
                    "nothing is deployed here", expected="at least one service", next_step="./inv deploy.postgres"
                )
            if absent:
                session.reporter.line(f"Not checked, because it is not deployed here: {', '.join(absent)}.")
        verdicts = verify_each(session, wanted)
        broken = [name for name, verdict in verdicts.items() if not verdict.ok]
        if broken:
            problem = verdicts[broken[0]].problem
            raise VerificationFailed(
                f"not verified: {', '.join(broken)}" + (f"; first: {problem.check}" if problem else ""),
                expected="every deciding check passed",
                next_step=problem.next_step if problem and problem.next_step else f"./inv verify.{broken[0]}",
            )
