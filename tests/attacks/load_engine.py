"""Loading an engine as the backend does before TensorRT sees it: ``load-engine FILE``."""

import sys

from edge_restore.engine.manifest import load_checked
from edge_restore.errors import UserError
from tests.edge_restore.engine.manifests import EXPECTED


def main() -> int:
    """0 and the bytes' hash when it is accepted, 2 and the reason when it is not."""
    try:
        loaded = load_checked(sys.argv[1], EXPECTED)
    except UserError as error:
        print(f"load-engine: error: {error}", file=sys.stderr)
        return 2
    from edge_restore.storage.trusted_file import digest

    print(digest(loaded.engine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
