"""Sound inputs that several kinds need, and what is read back from results."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.attacks.kind import Attack, Outcome
from tests.attacks.sandbox import Sandbox

WIDTH, HEIGHT = 64, 48


def link(source: Path, target: Path) -> None:
    """A copy that the case may do with as it likes."""
    shutil.copyfile(source, target)


def odd_file(rng: random.Random, path: Path) -> str:
    """Something at `path` that is no plain file, or none that can be read; what it is."""
    what = rng.choice(("folder", "pipe", "loop", "dangling link", "unreadable file", "empty file"))
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(path.name)
    elif what == "dangling link":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(b"{}" if what.startswith("unreadable") else b"")
        path.chmod(0 if what.startswith("unreadable") else 0o644)
    return what


def sound_run(name: str, attack: Callable[[Path], Attack], sandbox: Sandbox) -> Outcome:
    """A run of a sound input, in a folder of its own that stays.

    Raises:
        RuntimeError: it is refused.
    """
    case = sandbox.root / f"sound-{name}-{os.getpid()}"
    (case / "work").mkdir(parents=True)
    made = attack(case / "work")
    outcome = sandbox.learn(made, case)
    if outcome.code != 0:
        raise RuntimeError(
            f"the sound input '{name}' is refused ({outcome.code}):\n{outcome.out}\n{outcome.err}"
        )
    return outcome


def clip(
    path: Path, *, frames: int = 12, codec: str = "libx264", audio: str = "aac",
    pixel_format: str = "yuv420p", options: dict[str, str] | None = None,
    container: str | None = None, container_options: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """A small clip with a moving picture and, if asked for, a tone."""
    import av
    import numpy as np

    from tests.edge_restore.clips import picture

    with av.open(
        str(path),
        "w",
        format=container,
        container_options={"fflags": "+bitexact", **(container_options or {})},
    ) as out:
        video: Any = out.add_stream(codec, rate=Fraction(25), options=options or {})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, pixel_format
        video.codec_context.gop_size = 6
        video.codec_context.thread_count = 1
        track: Any = None
        if audio:
            track = out.add_stream(audio, rate=48000)
            track.layout = "stereo"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, HEIGHT, WIDTH), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(video.encode(frame))
            if track is not None:
                tone = np.sin(np.arange(index * 1920, (index + 1) * 1920) * 0.05) * 9000
                block = np.repeat(tone.astype(np.int16), 2)[None]
                sound = av.AudioFrame.from_ndarray(block, format="s16", layout="stereo")
                sound.sample_rate, sound.pts = 48000, index * 1920
                sound.time_base = Fraction(1, 48000)
                out.mux(track.encode(sound))
        out.mux(video.encode(None))
        if track is not None:
            out.mux(track.encode(None))
    return path


PCM_SAMPLES = 960
"""Of each packet that `clip` writes."""


def video_facts(path: Path) -> dict[str, Any]:
    """A video's frames (hashes and times in seconds) and its packets of sound."""
    import av

    with av.open(str(path)) as container:
        frames = []
        first = None
        for frame in container.decode(video=0):
            first = frame.time if first is None else first
            frames.append((_hash(frame.to_ndarray()), round((frame.time or 0) - (first or 0), 4)))
        size = (container.streams.video[0].width, container.streams.video[0].height)
    with av.open(str(path)) as container:  # MP4 or QuickTime, whose index has their number
        sound = container.streams.audio[0] if container.streams.audio else None
        packets = sound.frames if sound else 0
        if sound and sound.codec_context.name.startswith("pcm"):
            packets //= PCM_SAMPLES  # which are counted one by one
    return {"frames": frames, "size": size, "packets": packets}


def _hash(pixels: Any) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def quantisable_model(folder: Path) -> Path:
    """The small model, with its nodes and weights named as `python -m export` names them."""
    import onnx

    from tests.edge_restore.onnx_models import write_card, write_model

    path = write_model(folder)
    model = onnx.load(path)
    for number, node in enumerate(model.graph.node):
        node.name = f"l{number}/{node.op_type}"
        if node.op_type == "Conv":
            (weight,) = (t for t in model.graph.initializer if t.name == node.input[1])
            weight.name = node.input[1] = f"l{number}.weight"
    onnx.save(model, path)
    write_card(path)
    return path


def archive_damage(
    arrays: dict[str, Any], rng: random.Random, header: Callable[[], tuple[bytes, str]]
) -> tuple[bytes, str]:
    """An .npz of the arrays with something wrong inside: members, their headers, or their order.

    Args:
        arrays: numpy arrays by name; "header" is JSON as uint8.
        rng: what is wrong.
        header: gives another header, and what is wrong with it.
    """
    import io
    import zipfile

    import numpy as np

    members, what, pack = {}, "nothing", zipfile.ZIP_STORED
    for name, array in arrays.items():
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
        members[f"{name}.npy"] = stream.getvalue()
    victim = rng.choice(list(members))
    how = rng.randrange(12)
    if how == 0:
        del members[victim]
        what = f"{victim} is missing"
    elif how in (1, 2):
        content, what = header()
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.frombuffer(content, np.uint8), allow_pickle=False)
        members["header.npy"] = stream.getvalue()
    elif how == 3:
        shape = rng.choice(
            (
                "(10**12,)",
                "(0,)",
                "()",
                "(-1, 4)",
                "(1, 2, 3, 4, 5)",
                "(9223372036854775807, 2)",
                "(4, 48, 64, 3, 0)",
                "(2**70,)",
                "[4]",
                "'a'",
                "(1.5,)",
                "(True,)",
            )
        )
        members[victim], what = (
            _npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"),
            shape,
        )
        members[victim] += bytes(100)
    elif how == 4:
        kind = rng.choice(("|O", "<f8", "<U9999", "|V0", ">i4", "nope", "[('a', '|u1')]", "|b1"))
        members[victim] = members[victim].replace(b"'|u1'", repr(kind).encode().ljust(5)[:40], 1)
        what = f"{victim} is of {kind}"
    elif how == 5:
        members[victim] = members[victim].replace(b"False", b"True ", 1)
        what = f"{victim} is in Fortran's order"
    elif how == 6:
        members[victim] = members[victim][: rng.randrange(len(members[victim]))]
        what = f"{victim} is cut off, and its checksum made anew"
    elif how == 7:
        pack, what = zipfile.ZIP_DEFLATED, "compressed"
    elif how == 8:
        members[f"{rng.choice(('x', '../../evil', '/abs', 'train_99999', 'frames2'))}.npy"] = (
            members[victim]
        )
        what = "one member more"
    elif how == 9:
        members[victim] = rng.choice(
            (b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00" + bytes(20), rng.randbytes(300))
        )
        what = f"{victim} is no array"
    elif how == 10:
        members[victim] = _npy("{'descr': '|u1', " + "(" * 5000 + "}")
        what = f"the head of {victim} is nested"
    else:
        members[victim] = _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3000000000,), }")
        members[victim] += bytes(200_000_000 if rng.random() < 0.1 else 1000)
        pack, what = zipfile.ZIP_DEFLATED, f"{victim} says 3 GB"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", pack) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, pack)
    return stream.getvalue(), what


def _npy(head: str) -> bytes:
    text = head.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
