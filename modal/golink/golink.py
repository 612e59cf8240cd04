"""Short links on Modal: `go/<name>` redirects to the link's target.

Deploy with `./inv modal.deploy golink`, or by hand: `modal deploy modal/golink/golink.py`.
The Secret `golink` must exist, with the key GOLINK_TOKEN. The links are stored in the Dict `golink-links`.
"""

from __future__ import annotations

import os

import modal

SECRET = "golink"  # noqa: S105 - the name of a Modal Secret, not its value
TOKEN_KEY = "GOLINK_TOKEN"  # noqa: S105 - the name of a variable
LINKS = "golink-links"

app = modal.App("golink")
image = modal.Image.debian_slim(python_version="3.12").uv_pip_install("fastapi>=0.130").add_local_python_source("links")
links = modal.Dict.from_name(LINKS, create_if_missing=True)


@app.function(image=image, secrets=[modal.Secret.from_name(SECRET, required_keys=[TOKEN_KEY])])
@modal.concurrent(max_inputs=100)
@modal.asgi_app(label="golink")
def web():
    """Serve the web app. FastAPI is only in the image, so the import is here."""
    from links import build_app

    return build_app(links, os.environ[TOKEN_KEY])


@app.function(image=image, schedule=modal.Period(days=1))
def keep():
    """Read every link once a day: Modal drops an entry of a Dict that was not read or written for seven days.

    Source: modal, the docstring of `modal.Dict`, "Lifetime of a Dict and its items".
    """
    from links import read_each

    print(f"{read_each(links)} links read")  # noqa: T201 - the log of the run
