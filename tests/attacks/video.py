"""Videos: containers and streams that are cut off, damaged, or lie about themselves.

The result is compared with that of the sound clip: each frame's pixels and time, and how many
packets of sound. It is silently wrong where it differs and

- frames or sound are fewer, unless the cut fell between two packets of a transport stream or two
  pictures of a raw stream, which state no length (nobody could know), or
- FFmpeg itself reports an error when it reads the damaged file to its end.

What the decoder of the sound would say does not count: the sound is copied as it is, undecoded.
Neither do pictures that an edit list hides, once the times in a file are others.

So a flipped bit in a coded picture, which is decoded to another picture without any complaint of
FFmpeg's, and times that the container states and that are consistent, are other valid inputs.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate
from tests.attacks.kind import CHANGED, EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox

_CLIPS: dict[str, dict[str, Any]] = {
    "plain.mp4": {"options": {"bf": "0", "preset": "ultrafast"}},
    "b.mp4": {"options": {"bf": "2"}},
    "faststart.mp4": {"container_options": {"movflags": "faststart"}},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "b.mov": {"options": {"bf": "2"}},
    "b.mkv": {"options": {"bf": "2"}},
    "lossless.mkv": {"codec": "ffv1", "audio": "flac", "options": {"slicecrc": "1", "level": "3"}},
    "mpeg4.avi": {"codec": "mpeg4", "audio": "pcm_s16le"},
    "pictures.avi": {"codec": "mjpeg", "audio": "", "pixel_format": "yuvj420p"},
    "plain.ts": {"options": {"bf": "0"}},
    "b.ts": {"options": {"bf": "2"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "audio": "mp2"},
    "plain.flv": {"options": {"bf": "0"}},
    "vp8.webm": {"codec": "libvpx", "audio": "libopus", "options": {"deadline": "realtime"}},
    "raw.h264": {"audio": "", "options": {"bf": "0"}},
    "raw.y4m": {"codec": "wrapped_avframe", "audio": "", "container": "yuv4mpegpipe"},
}
_ODD_NAMES = (
    "2024-05-01T10:30:00{}",
    "100%{}",
    "-dash{}",
    "a b{}",
    "naïve{}",
    "list,of{}",
    "x?y#z{}",
)


class VideoKind(Kind):
    """See the module."""

    name = "video"
    imports = ("numpy", "cv2", "av", "onnx")

    def make(self) -> None:
        import av

        from tests.edge_restore.onnx_models import write_model

        write_model(self.corpus)
        for name, options in _CLIPS.items():
            try:
                corpus.clip(self.corpus / name, **options)
            except (av.FFmpegError, ValueError):  # this FFmpeg has no such encoder
                (self.corpus / name).unlink(missing_ok=True)

    def measure(self, sandbox: Sandbox) -> None:
        self.clips = sorted(path.name for path in self.corpus.iterdir() if path.name in _CLIPS)
        self.content = {name: (self.corpus / name).read_bytes() for name in self.clips}
        self.sound: dict[str, Any] = {}
        self.refused: dict[str, str] = {}
        for name in self.clips:

            def attack(work: Path, name: str = name) -> Attack:
                (work / name).write_bytes(self.content[name])
                return self._run(name, "nothing")

            try:
                outcome = corpus.sound_run(name, attack, sandbox)
            except RuntimeError as error:
                self.refused[name] = str(error)
                continue
            self.sound[name] = sandbox.call(corpus.video_facts, outcome.work / "o.mp4")
        self.clips = [name for name in self.clips if name in self.sound]

    def attack(self, rng: random.Random, work: Path) -> Attack:
        name = rng.choice(self.clips)
        data = self.content[name]
        if rng.random() < 0.03:
            fed = f"{name}: a {corpus.odd_file(rng, work / name)}"
            return self._run(name, fed, lambda _: (SILENT, "read from no plain file"))
        data, fed = _damage(name, data, rng)
        fed = f"{name}: {fed}"
        called = name
        if rng.random() < 0.05:
            called = rng.choice(_ODD_NAMES).format(
                rng.choice((Path(name).suffix, ".mp4", ".txt", ""))
            )
            fed += f", called {called}"
        (work / called).write_bytes(data)
        if rng.random() < 0.04:
            return self._collect(called, fed)
        # A raw stream promises nothing; its decoder notices, or nobody does.
        boundary = name.endswith(".h264") or (
            self.content[name].startswith(data) and _between_pictures(name, data)
        )
        # A recording may begin at any packet of a running stream.
        whole = self.content[name]
        boundary |= name.endswith(".ts") and _packets(data) <= _packets(whole) and _goes_on(data)
        boundary |= _lists(data) != _lists(self.content[name])
        return self._run(
            called, fed, lambda outcome: self._judge(outcome, name, called, boundary), rng
        )

    def _run(self, name: str, fed: str, judge: Any = None, rng: Any = None) -> Attack:
        out = rng.choice(("o.mp4", "o.mp4", "o.mov")) if rng else "o.mp4"
        # A name that starts with a dash is given as everybody has to.
        given = f"./{name}" if name.startswith("-") else name
        command = ["run", given, "--out", out, "--model", str(self.corpus / "small.onnx")]
        backend = "openvino" if rng is not None and rng.random() < 0.01 else "onnxruntime"
        command += ["--backend", backend, "--threads", "1"]
        return Attack("edge-restore", command, fed, judge, outputs=(out,))

    def _collect(self, name: str, fed: str) -> Attack:
        given = f"./{name}" if name.startswith("-") else name
        command = ["collect", given, "--out", "set.npz", "--count", "4"]
        return Attack("calibration", command, fed, lambda _: (EQUAL, "not compared"), ("set.npz",))

    def _judge(self, outcome: Outcome, name: str, called: str, boundary: bool) -> Verdict:
        out = next(outcome.work.glob("o.m*"))
        found, sound = corpus.video_facts(out), self.sound[name]
        if found == sound:
            return EQUAL, ""
        packets, whole = found["packets"], sound["packets"]
        complaints = _complaints(outcome.work / called)
        frames = len(found["frames"])
        lost = f"{frames} of {len(sound['frames'])} frames, {packets} of {sound['packets']} packets"
        # An FLV's header says how long the last picture is shown, and so which sound is the last;
        # a program stream states no length, and sound that is missing before its end is a gap.
        least = 0 if name.endswith(".mpg") else whole - name.endswith(".flv")
        fewer = frames < len(sound["frames"]) or packets < least
        if complaints:
            return SILENT, f"{lost}; FFmpeg says: {complaints[0]}"
        if fewer and not boundary:
            return SILENT, lost
        return CHANGED, lost


def _packets(data: bytes) -> set[bytes]:
    return {data[at : at + 188] for at in range(0, len(data), 188)}


def _goes_on(data: bytes) -> bool:
    """Whether the packets of each track in a transport stream are counted without a gap.

    The tables' counters jump also where recordings were joined.
    """
    last: dict[int, int] = {}
    for at in range(0, len(data), 188):
        kind = int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF
        counter, has_payload = data[at + 3] & 0xF, data[at + 3] & 0x10
        if data[at] != 0x47 or data[at + 1] & 0x80:
            return False
        is_table = kind in (0, 0x11, 0x1000)
        if has_payload and not is_table and kind in last and counter != (last[kind] + 1) % 16:
            return False
        last[kind] = counter
    return True


def _lists(data: bytes) -> list[bytes]:
    """An MP4's lists of what is shown when, and of what is not shown."""
    found = []
    for kind in (b"ctts", b"elst"):
        at = data.find(kind)
        while at >= 4:
            found.append(data[at - 4 : at - 4 + int.from_bytes(data[at - 4 : at], "big")])
            at = data.find(kind, at + 4)
    return found


def _between_pictures(name: str, data: bytes) -> bool:
    """Whether a stream that states no length may end here, as far as anybody can see."""
    if name.endswith(".ts"):
        return len(data) % 188 == 0
    if name.endswith(".y4m"):
        picture = len(b"FRAME\n") + corpus.WIDTH * corpus.HEIGHT * 3 // 2
        return (len(data) - data.find(b"\n") - 1) % picture == 0
    return False


def _complaints(path: Path) -> list[str]:
    """The errors that FFmpeg reports while it reads the whole file."""
    import av
    import av.logging

    av.logging.set_level(av.logging.ERROR)
    found = []
    with av.logging.Capture(local=False) as logs:
        try:
            with av.open(str(path), metadata_errors="replace") as container:
                for packet in container.demux():
                    found += ["corrupt packet"] if packet.is_corrupt else []
                    if packet.stream.type == "video":
                        found += [
                            "corrupt frame"
                            for f in packet.decode()
                            if getattr(f, "is_corrupt", False)
                        ]
        except (av.FFmpegError, ValueError) as error:
            found.append(str(error))
    sound = ("aac", "mp2", "mp3", "flac", "opus", "libopus", "pcm_s16le")
    said = [text.strip() for level, name, text in logs
            if level <= av.logging.ERROR and name not in sound]  # fmt: skip
    return [*said, *found]


def _damage(name: str, data: bytes, rng: random.Random) -> mutate.Damage:
    how = rng.random()
    if how < 0.45:
        return mutate.damage(data, rng)
    if how < 0.6:
        return mutate.truncate(data, rng)
    if name.endswith((".mp4", ".mov")):
        return _boxes(data, rng)
    if name.endswith(".ts"):
        return _transport(data, rng)
    if name.endswith((".mkv", ".webm")):
        return _elements(data, rng)
    if name.endswith(".avi"):
        return _chunks(data, rng)
    return mutate.damage(data, rng)


_BOXES = (
    b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts", b"ctts", b"stsc", b"stsz", b"stco",
    b"stss", b"mdhd", b"mvhd", b"tkhd", b"elst", b"hdlr", b"avcC", b"avc1", b"esds", b"mdat",
    b"ftyp", b"moof", b"trun", b"tfhd", b"tfdt", b"colr", b"stsd", b"udta",
)  # fmt: skip


def _boxes(data: bytes, rng: random.Random) -> mutate.Damage:
    """Damage to one box of an MP4: its size, its kind, a number in it, or its absence."""
    boxes = [b for b in _BOXES if b in data]
    kind = rng.choice(boxes)
    places = [i for i in range(4, len(data)) if data.startswith(kind, i)]
    at = rng.choice(places)
    size = int.from_bytes(data[at - 4 : at], "big")
    how = rng.randrange(6)
    if how == 0:
        new = rng.choice((0, 1, 7, 8, size - 1, size + 1, size * 2, 2**31, 2**32 - 1))
        new = max(0, new) & 0xFFFFFFFF
        return data[: at - 4] + struct.pack(">I", new) + data[at:], f"{kind!r} says {new} bytes"
    if how == 1:
        new_kind = rng.choice((b"free", b"\0\0\0\0", b"xxxx", rng.choice(boxes)))
        return data[:at] + new_kind + data[at + 4 :], f"{kind!r} is called {new_kind!r}"
    if how == 2:
        end = at - 4 + max(8, size)
        return data[: at - 4] + data[end:], f"{kind!r} is cut out"
    inner = at + 4 + 4 * rng.randrange(max(1, min(size, 120) // 4))
    number = rng.choice((0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, rng.getrandbits(32)))
    changed = data[:inner] + struct.pack(">I", number) + data[inner + 4 :]
    return changed, f"{number} at {inner - at} of {kind!r}"


def _transport(data: bytes, rng: random.Random) -> mutate.Damage:
    """Packets of a transport stream lost, repeated, swapped; or two streams joined."""
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    how = rng.randrange(5)
    at, count = rng.randrange(len(packets)), rng.randint(1, 6)
    if how == 0:
        del packets[at : at + count]
        what = f"{count} packets lost at {at}"
    elif how == 1:
        packets[at:at] = packets[at : at + count]
        what = f"{count} packets repeated at {at}"
    elif how == 2:
        to = rng.randrange(len(packets))
        packets[at], packets[to] = packets[to], packets[at]
        what = f"packets {at} and {to} swapped"
    elif how == 3:
        whole = bytearray(packets[at])
        whole[1] |= 0x80
        packets[at] = bytes(whole)
        what = f"packet {at} has the transport error flag"
    else:
        del packets[at:]
        what = f"cut after {at} packets"
    return b"".join(packets), what


_ELEMENTS = {
    b"\x18\x53\x80\x67": "Segment", b"\x1f\x43\xb6\x75": "Cluster", b"\x15\x49\xa9\x66": "Info",
    b"\x16\x54\xae\x6b": "Tracks", b"\xa3": "SimpleBlock", b"\xe7": "Timestamp",
    b"\xa0": "BlockGroup",
    b"\x2a\xd7\xb1": "TimestampScale", b"\x44\x89": "Duration", b"\x1c\x53\xbb\x6b": "Cues",
    b"\x63\xa2": "CodecPrivate", b"\x1a\x45\xdf\xa3": "EBML",
}  # fmt: skip


def _elements(data: bytes, rng: random.Random) -> mutate.Damage:
    """Damage after the name of a Matroska element: its size, or what it holds."""
    known = {name: ident for ident, name in _ELEMENTS.items() if ident in data}
    name = rng.choice(sorted(known))
    ident = known[name]
    places = [i for i in range(len(data)) if data.startswith(ident, i)]
    at = rng.choice(places) + len(ident)
    length = rng.choice((1, 1, 2, 4, 8))
    patch = rng.choice((bytes(length), b"\xff" * length, b"\x01" * length, rng.randbytes(length)))
    return data[:at] + patch + data[at + length :], f"{patch.hex()} after {name} at {at}"


def _chunks(data: bytes, rng: random.Random) -> mutate.Damage:
    """Damage to the header or size of a chunk of an AVI."""
    kinds = [
        k
        for k in (b"RIFF", b"LIST", b"avih", b"strh", b"strf", b"00dc", b"01wb", b"idx1")
        if k in data
    ]
    kind = rng.choice(kinds)
    at = rng.choice([i for i in range(len(data)) if data.startswith(kind, i)])
    if rng.random() < 0.3:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        return data[:at] + data[at + 8 + size :], f"{kind!r} at {at} is cut out"
    inner = at + 4 + 4 * rng.randrange(3)
    number = rng.choice((0, 1, 7, 2**16, 2**31, 2**32 - 1, rng.getrandbits(32)))
    return data[:inner] + struct.pack("<I", number) + data[
        inner + 4 :
    ], f"{number} in {kind!r} at {at}"


KIND = VideoKind
