"""``edge-restore doctor``."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edge_restore.machine.streams import print_json

CANNOT_RUN = 2

HELP = """\
Tell what this machine can run, and what is missing for the rest.

The exit code is 0 when `edge-restore run` can work here, and 2 when it cannot.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--json", action="store_true", help="print JSON, not a list")


def doctor(options: argparse.Namespace) -> int:
    """Run the command; `HELP` says what it does."""
    from edge_restore.commands import diagnosis
    from edge_restore.machine.describe import library_versions, this_machine

    checks = diagnosis.diagnose()
    machine = this_machine()
    ready = all(check.ok for check in checks if check.required)
    if options.json:
        document = {
            "ready": ready,
            "machine": machine.to_json(),
            "versions": library_versions(),
            "checks": [asdict(check) for check in checks],
        }
        print_json(document)
        return 0 if ready else CANNOT_RUN
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory_mib} MiB")
    print(f"{machine.system}, Python {machine.python}")
    print(f"GPU: {', '.join(machine.gpus) or 'none that an NVIDIA driver shows'}\n")
    for check in checks:
        state = "ok" if check.ok else ("MISSING" if check.required else "no")
        print(f"{state:<8}{check.name}: {check.detail}")
        if check.hint:
            print(f"{'':8}  {check.hint}")
    print()
    print("`edge-restore run` works here" if ready else "`edge-restore run` cannot work here yet")
    return 0 if ready else CANNOT_RUN
