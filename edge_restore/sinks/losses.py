"""What an output shares with its source's pictures, and in words what it cannot.

The encoder is FFmpeg's libx264; frames are RGB of 8 bits on their way through the network.
"""

from __future__ import annotations

from edge_restore.media.stream_info import StreamInfo

_SIDE_DATA = {
    "MASTERING_DISPLAY_METADATA": "the mastering display's colour volume (HDR)",
    "CONTENT_LIGHT_LEVEL": "the content light level (HDR)",
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "AMBIENT_VIEWING_ENVIRONMENT": "the ambient viewing environment (HDR)",
    "ICC_PROFILE": "the ICC colour profile",
    "A53_CC": "closed captions",
    "STEREO3D": "the stereo 3D arrangement",
    "SPHERICAL": "the spherical (360 degree) projection",
}
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}


def pixel_format(info: StreamInfo) -> str:
    """The encoder's pixel format that holds the source's colours and bits, as FFmpeg chooses it.

    H.264 halves the colour planes of 4:2:0, which odd sizes do not allow.
    """
    across, down, bits, _ = _layout(info)
    if info.width % 2 or info.height % 2 or across == 1:
        sampling = "444"
    else:
        sampling = "422" if down == 1 else "420"
    return f"yuv{sampling}p" + ("10le" if bits > 8 else "")


def losses(info: StreamInfo) -> list[str]:
    """What of the source's pictures the output cannot have, a sentence each."""
    _, _, bits, alpha = _layout(info)
    lost = []
    if bits > 8:
        lost.append(
            f"the source has {bits} bits a sample: it is restored in 8 and written in 10, "
            "so fine gradients may show steps"
        )
    if alpha or info.stream_metadata.get("alpha_mode") == "1":
        lost.append("transparency (the alpha channel) is left out: H.264 has none")
    if info.color_trc in _HDR_TRANSFERS:
        lost.append(
            f"the source is HDR ({_HDR_TRANSFERS[info.color_trc]}): its transfer curve is kept, "
            "the network was trained with standard dynamic range"
        )
    named = dict.fromkeys(_SIDE_DATA[name] for name in info.side_data if name in _SIDE_DATA)
    lost.extend(f"{what} cannot be kept: left out" for what in named)
    return lost


def _layout(info: StreamInfo) -> tuple[int, int, int, bool]:
    """How many pixels share a colour sample across and down, bits a sample, whether with alpha."""
    from av import VideoFormat

    if not info.pixel_format:
        return 2, 2, 8, False
    layout = VideoFormat(info.pixel_format, 64, 64)
    components = layout.components
    alpha = any(part.is_alpha for part in components)
    bits = max(part.bits for part in components)
    if len(components) < 3:  # grey: nothing is lost by halving
        return 2, 2, bits, alpha
    return 64 // layout.chroma_width(64), 64 // layout.chroma_height(64), bits, alpha
