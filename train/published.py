"""What the papers say of their networks, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A paper's figures of its full network, as printed.

    Attributes:
        parameters: in millions.
        parameters_where: table or section, and the paper's words where they are vague.
        seconds: for one picture; None where the paper gives no time.
        seconds_where: table or section, size and GPU as far as they are given.
        psnr: on GoPro's test set, dB; `ssim` with it.
        scores_where: table.
    """

    parameters: float
    parameters_where: str
    seconds: float | None
    seconds_where: str
    psnr: float
    ssim: float
    scores_where: str


PUBLISHED = {
    "svdn": Published(
        0.8, 'section 4.3, "nearly 0.8M"; Table 1: 3.1 MB',
        0.01, 'Table 1 and section 4.3, "nearly 0.01s", 1280x720, GTX 1080 Ti',
        29.81, 0.9368, "Table 1, Ours(B), with flow guidance",
    ),
    "lmfn": Published(
        1.25, "Tables 1 to 4",
        0.019, "Table 1, size not given, RTX 2080 Ti (section 4.1)",
        31.54, 0.923, "Table 1",
    ),
    "drcnet": Published(
        18.9, "Tables 1 to 5",
        0.0239, "Table 4 (denoising, SIDD), size and GPU not given",
        32.82, 0.961, "Table 3",
    ),
    "fcn": Published(
        20.309, "section 4.3.1",
        None, "not given",
        33.32, 0.972, "Table 1",
    ),
}  # fmt: skip
