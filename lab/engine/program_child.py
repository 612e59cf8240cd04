"""Runs one Pulumi program with the SDK of its own environment. Started by ``program``; imports nothing of the lab.

The file descriptor of the first argument gives one JSON document: monitor, engine, project, stack, organization,
parallel, dry_run, root, folder, program, config, secret_keys. An empty one means: end. That of the second one ends when
the engine is gone, and so does this process.
Exit 0 done, 1 failed and told by ``RunError``, 32 failed with an exception of the program, told.
"""

import os
import sys

if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):  # noqa: PTH100, PTH120
    # This folder's modules must not hide the program's, nor the standard library's.
    del sys.path[0]

import asyncio
import json
import logging
import runpy
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

ALREADY_TOLD = 32


def end_with_the_engine(descriptor: int) -> None:
    os.read(descriptor, 1)
    os._exit(1)


def main() -> int:
    threading.Thread(target=end_with_the_engine, args=(int(sys.argv[2]),), daemon=True).start()
    import pulumi
    import pulumi.runtime
    from pulumi.runtime import run_in_stack, settings

    with os.fdopen(int(sys.argv[1]), encoding="utf-8") as pipe:
        text = pipe.read()
    if not text:
        return 1
    order: dict[str, Any] = json.loads(text)
    pulumi.runtime.set_all_config(order["config"], order["secret_keys"])
    pulumi.runtime.configure(
        settings.Settings(
            project=order["project"],
            stack=order["stack"],
            organization=order["organization"],
            monitor=order["monitor"],
            engine=order["engine"],
            parallel=order["parallel"],
            dry_run=order["dry_run"],
            root_directory=order["root"],
        )
    )
    sys.argv = [order["program"]]
    # A program that ends early leaves futures unobserved; asyncio would report each.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(max_workers=max(order["parallel"], 1) * 4)
    loop.set_default_executor(executor)
    try:
        loop.run_until_complete(run_in_stack(lambda: _run(order["program"])))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except Exception as error:  # noqa: BLE001 - whatever the program raises is told and ends it
        pulumi.log.error(f"Program failed with an unhandled exception:\n{_user_traceback(error, order['folder'])}")
        return ALREADY_TOLD
    finally:
        executor.shutdown(wait=True)
        loop.close()
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _run(program: str) -> None:
    runpy.run_path(program, run_name="__main__")


def _user_traceback(error: BaseException, folder: str) -> str:
    """From the first frame of the program on; all of it when no frame is the program's."""
    frames = traceback.extract_tb(error.__traceback__)
    first = next(
        (number for number, frame in enumerate(frames) if _is_within(frame.filename, folder)),
        0,
    )
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames[first:])]
    return "".join(lines + traceback.format_exception_only(error))


def _is_within(file: str, folder: str) -> bool:
    """Whether a frame's file is one of the program's; `<frozen runpy>` and the like are nobody's."""
    return not file.startswith("<") and os.path.abspath(file).startswith(folder + os.sep)  # noqa: PTH100


if __name__ == "__main__":
    sys.exit(main())
