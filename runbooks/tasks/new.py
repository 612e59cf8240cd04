"""`new.service`: write the folder of a new project."""

from __future__ import annotations

from typing import Any

from invoke import task


@task(
    positional=["name"],
    auto_shortflags=False,  # `-foo` is a wrong name, not the folder `oo`
    help={
        "name": "The service's name: one DNS label, also its folder's, its namespace and its name on the tailnet.",
        "folder": "Its folder: pulumi/<area>/…/NAME, new or empty.",
        "image": "Image it runs, with a version; without one, a web server that shows its own start page.",
        "port": "Port the image listens on, 1024 to 65535 (8080).",
        "about": "What it is, in a few words, such as: Podinfo, which shows where it runs.",
    },
)
def service(c: Any, name: str, folder: str = "", image: str = "", port: str = "", about: str = "") -> None:
    """Write the folder of a new Pulumi project, and print its entry in the list of services. Nothing else is touched.

    The project is a pod, its Service and a name on the tailnet; docs/add-a-service.md describes the next steps.

    Example: ./inv new.service podinfo --folder pulumi/apps/web/podinfo
    """
    from runbooks.core.files import ROOT
    from runbooks.run import open_run
    from runbooks.services import SERVICES
    from runbooks.stacks import scaffolding

    with open_run(c, "new.service") as run:
        project = scaffolding.read_project(ROOT, SERVICES, name, folder, image=image, port=port, about=about)
        names = scaffolding.write(project, ROOT)
        run.reporter.line(f"Wrote {project.shown_folder}: {', '.join(names)}")
        run.reporter.line("Now add this to SERVICES in runbooks/services.py:\n")
        entry = scaffolding.entry(project)
        run.reporter.line(entry)
        steps = scaffolding.next_commands(project)
        run.reporter.line("\n".join(["then:", *(f"  {step}" for step in steps)]))
        facts = {"folder": project.shown_folder, "files": names, "entry": entry, "next": steps}
        run.reporter.event("project", service=project.name, **facts)
