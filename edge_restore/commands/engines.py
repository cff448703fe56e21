"""``edge-restore engines``."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from edge_restore.commands.option_types import any_path
from edge_restore.errors import OptionError
from edge_restore.machine.streams import print_json

if TYPE_CHECKING:
    from edge_restore.engine.cache import Entry

HELP = """\
List the engines in the cache, or make room there.

The cache holds what `edge-restore build` built without -o, and what the backend built for
itself. It never grows beyond 2 GiB by much: a build removes what was not used for longest.
Nothing is ever removed from a folder that held other files before.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--cache", type=any_path, metavar="DIR", help="the cache's folder")
    parser.add_argument(
        "--prune",
        action="store_true",
        help="remove what was not used for longest, and what cannot be trusted",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="MIB",
        help="what --prune leaves at most; default: 2048; 0 removes everything",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with the whole manifests")


def engines(options: argparse.Namespace) -> int:
    """Run the command; `HELP` says what it does."""
    from edge_restore.engine.cache import EngineCache
    from edge_restore.report import cells

    if options.limit is not None and (options.limit < 0 or not options.prune):
        raise OptionError(
            f"the limit is {options.limit} MiB" + ("" if options.prune else " without --prune"),
            expected="--prune --limit with 0 or more",
            hint="edge-restore engines --prune --limit 500",
        )
    store = EngineCache(options.cache)
    limit = None if options.limit is None else options.limit << 20
    removed = store.prune(limit) if options.prune else []
    if options.prune and not store.is_own:
        print(
            f"edge-restore: warning: nothing is removed from '{store.folder}': it holds other "
            "files, so it is not the cache's own",
            file=sys.stderr,
        )
    entries = store.entries()
    if options.json:
        document = {
            "folder": str(store.folder),
            "engines": [_document(entry) for entry in entries],
            "removed": [entry.engine.name for entry in removed],
        }
        print_json(document)
        return 0
    for entry in removed:
        print(f"removed {entry.engine.name}, {cells.size(entry.bytes)}")
    if not entries:
        print(f"no engines in '{store.folder}'")
        return 0
    header = ["engine", "built by", "for", "height x width", "precision", "size", "last used"]
    print(cells.text_table(header, [_row(entry) for entry in entries], left=5))
    total = sum(entry.bytes for entry in entries)
    print(f"\n{len(entries)} in '{store.folder}', {cells.size(total)}")
    return 0


def _row(entry: Entry) -> list[str]:
    from edge_restore.report import cells

    size = cells.size(entry.bytes)
    try:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    except (OverflowError, ValueError, OSError):  # a file's time may be any number
        used = "?"
    if (manifest := entry.manifest) is None:
        return [entry.engine.name, f"unusable: {entry.problem}", "", "", "", size, used]
    return [
        entry.engine.name,
        f"{manifest.flavour} {manifest.flavour_version}",
        ", ".join(manifest.targets),
        f"{manifest.height}x{manifest.width}",
        manifest.precision,
        size,
        used,
    ]


def _document(entry: Entry) -> dict[str, Any]:
    document: dict[str, Any] = {
        "file": entry.engine.name,
        "bytes": entry.bytes,
        "used": entry.used,
        "usable": entry.manifest is not None,
    }
    if entry.manifest is None:
        return {**document, "problem": entry.problem}
    return {**document, "manifest": entry.manifest.to_json()}
