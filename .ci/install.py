"""Install the project and what it needs beside the Python that runs this: the Makefile's set-up.

As `pip install -e .[EXTRAS]`, but for OpenCV, whose wheels share the module cv2. opencv-python
wants libraries of a desktop (libGL.so.1, libglib-2.0.so.0), which servers and containers lack:
where it is installed and cannot be loaded, opencv-python-headless of the same version takes its
place. Any cv2 that loads will do, and nothing is installed over it.

usage: python .ci/install.py [EXTRA,EXTRA...]
"""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

from pip._vendor.packaging.requirements import Requirement

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
OPENCV = "opencv-python"
HEADLESS = "opencv-python-headless"


def main(extras: list[str]) -> int:
    """Install everything; 0, or 1 with the reason."""
    # pip counts an OpenCV of another name as missing, and would install the usual one over it.
    cv2_loads = not reason_of_cv2()
    pip("install", "-c", "constraints.txt", "--no-deps", "-e", ".")
    needed = [each for each in requirements(extras) if not (cv2_loads and each.startswith(OPENCV))]
    pip("install", "-c", "constraints.txt", *needed)
    if not (reason := reason_of_cv2()):
        return 0
    try:
        version = metadata.version(OPENCV)
    except metadata.PackageNotFoundError:
        print(f"OpenCV cannot be loaded: {reason}")
        return 1
    print(f"{OPENCV} cannot be loaded ({reason}): {HEADLESS} {version} takes its place")
    pip("uninstall", "--yes", OPENCV)
    pip("install", f"{HEADLESS}=={version}")
    if reason := reason_of_cv2():
        print(f"{HEADLESS} cannot be loaded either: {reason}")
        return 1
    return 0


def requirements(extras: list[str]) -> list[str]:
    """What the project needs with `extras` here."""
    found = []
    for text in metadata.requires("edge-restore") or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            requirement.marker = None
            found.append(str(requirement))
    return found


def reason_of_cv2() -> str:
    """Why cv2 cannot be imported, in a process of its own; empty when it can."""
    result = subprocess.run(
        [sys.executable, "-c", "import cv2"], capture_output=True, text=True, check=False
    )
    lines = result.stderr.strip().splitlines()
    return "" if result.returncode == 0 else lines[-1] if lines else "it crashed"


def pip(*arguments: str) -> None:
    """Run pip, which says itself what is wrong."""
    subprocess.run([*PIP, *arguments], check=True)


if __name__ == "__main__":
    try:
        sys.exit(main([extra for word in sys.argv[1:] for extra in word.split(",")]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
