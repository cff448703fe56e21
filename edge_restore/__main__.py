"""The program ``edge-restore``, also as ``python -m edge_restore``."""

from edge_restore.machine import process


def main() -> None:
    """Run the command line and end the process."""
    process.guard()  # before the import of the commands
    from edge_restore import cli

    process.finish(cli.main)


if __name__ == "__main__":
    main()
