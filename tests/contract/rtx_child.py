"""In a child process of its own: parse ONNX files with one version of TensorRT-RTX and read back.

Given a list of paths, answers the library's version and, for each path, what was wrong or nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge_restore.engine import flavour, read_back
from edge_restore.errors import BackendError
from edge_restore.models import onnx_graph


def main() -> None:
    library = flavour.load("rtx")
    trt = library.trt
    logger = trt.Logger(trt.Logger.ERROR)
    found = {}
    for path in json.loads(sys.stdin.read()):
        content = Path(path).read_bytes()
        definition = trt.Builder(logger).create_network(library.network_flags)
        parser = trt.OnnxParser(definition, logger)
        if not parser.parse(content):
            found[path] = f"not parsed: {parser.get_error(0).desc()}"
            continue
        try:
            read_back.check(library, definition, onnx_graph.read(content, path), path)
            found[path] = ""
        except BackendError as error:
            found[path] = error.found
    print(f"\n{json.dumps({'version': library.version, 'found': found})}")


main()
