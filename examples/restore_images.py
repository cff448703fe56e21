"""Restore images with a network that ships with the package.

python examples/restore_images.py blurred.png sharp.png [MODEL]
"""

import sys

import cv2

import edge_restore as er


def main() -> None:
    source, out, *model = sys.argv[1:]
    image = cv2.imread(source)  # BGR
    if image is None:
        sys.exit(f"'{source}' is no image that OpenCV can read")
    with er.open(*model) as restorer:
        restored = restorer(image[..., ::-1])  # RGB
        cv2.imwrite(out, restored[..., ::-1])
        print(f"{restorer.card.name} by {restorer.name}: wrote '{out}'")


if __name__ == "__main__":
    main()
