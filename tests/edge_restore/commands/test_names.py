"""File names that FFmpeg, a shell or a terminal would take for something else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edge_restore
from edge_restore.commands import command_line
from edge_restore.errors import InternalError, OptionError, harmless, shown, shown_lines
from edge_restore.machine.streams import json_text
from edge_restore.storage.json_file import decode

ROOT = Path(edge_restore.__file__).parent.parent

NAMES = [
    b"2024-05-01T10:30:00.mp4",
    b"-x.mp4",
    b"file:x.mp4",
    b"http:x.mp4",
    b"https:%2f%2fexample.org%2fx.mp4",
    b"pipe:0.mp4",
    b"data:x.mp4",
    b"concat:a|b.mp4",
    b"tcp:127.0.0.1:9.mp4",
    b"frame%03d.mp4",
    b"a b'c\"$(id).mp4",
    b"\xff\xfe.mp4",
    "ä漢.mp4".encode(),
    b"\x1b[2J\x1b]0;title\x07.mp4",
    b"two\nlines.mp4",
]


def child(folder: Path, *arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "edge_restore", *arguments], capture_output=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_any_name_works_as_source_and_output(name: bytes, tmp_path: Path) -> None:
    pytest.importorskip("av")
    pytest.importorskip("onnxruntime")
    from tests.edge_restore.clips import write_clip
    from tests.edge_restore.onnx_models import write_model

    write_model(tmp_path)
    os.rename(write_clip(tmp_path / "clip.mp4"), os.fsencode(tmp_path) + b"/" + name)
    out = b"out" + name if name != b"-x.mp4" else b"-y.mp4"
    report = "report.html" if name.startswith(b"\x1b") else "report.json"
    result = child(
        tmp_path, "run", b"--out=" + out, "--model", "small.onnx", "--max-frames", "3",
        "--report", report, "--", name,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (os.fsencode(tmp_path) + b"/" + out) in [
        os.fsencode(tmp_path) + b"/" + each for each in os.listdir(os.fsencode(tmp_path))
    ]
    printed = result.stdout + result.stderr
    assert b"\x1b" not in printed and b"\x07" not in printed and b"Traceback" not in printed
    assert shown(os.fsdecode(out)).encode() in printed
    text = (tmp_path / report).read_bytes().decode()  # UTF-8 in any case
    assert "\x1b" not in text
    if report.endswith(".json"):
        assert json.loads(text)["source"] == shown(os.fsdecode(name))


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:9/x.mp4", "tcp://127.0.0.1:9", "concat:a.mp4|b.mp4", "pipe:0",
             "data:video/mp4;base64,AAAA", "subfile,,start,0,end,9,,:a.mp4"],
)  # fmt: skip
def test_protocols_are_not_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x" * 100)
    result = child(tmp_path, "run", name, "--out", "out.mp4")
    assert result.returncode == 2
    # A source with "://" is refused by its kind, any other as a file that is not there.
    assert b"there is no file" in result.stderr or b"is not a kind of source" in result.stderr


def test_playlists_fetch_nothing(tmp_path: Path) -> None:
    """The file is there; what it names is not asked for."""
    lists = {
        "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n",
        "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ntcp://127.0.0.1:9/x.ts\n",
        "dash.mpd": '<?xml version="1.0"?>\n<MPD><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>\n',
        "list.mp4": "ffconcat version 1.0\nfile http://127.0.0.1:9/x.mp4\n",
        "call.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }  # fmt: skip
    audited = "import sys\nfrom edge_restore.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    strace = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-e",
        "trace=connect,bind",
        "-o",
        str(tmp_path / "trace"),
    ]
    try:
        traced = subprocess.run([*strace, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        traced = False
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        result = subprocess.run(
            [*(strace if traced else []), sys.executable, "-c", audited, "run", name, "--out",
             "out.mp4", "--backend", "onnxruntime"],
            capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert result.returncode == 2, name
        assert "Traceback" not in result.stderr
        assert ("is a playlist" in result.stderr) is name.endswith((".m3u8", "hls.mp4", ".mpd"))
        if traced:
            assert "AF_INET" not in (tmp_path / "trace").read_text()


def test_what_is_shown_is_not_obeyed() -> None:
    for text, expected in (
        ("plain ä漢.mp4", "plain ä漢.mp4"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x9b31m\x7f\x00", "\\u009b31m\\x7f\\x00"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\u0085"),
        ("\udcff\ud800", "\\xff\\ud800"),
    ):
        assert shown(text) == expected
        assert shown(text).encode().decode() == expected
    assert shown(Path("a\x1bb")) == "a\\x1bb"
    assert shown_lines("a\n    b\nc") == "a\n    b\\nc"
    assert harmless("a\nb\rc\td\x1b\x9b") == "a\nb\rc\td\\x1b\\u009b"


def test_errors_show_control_characters() -> None:
    error = OptionError("'\x1b[2J\nfoo'\n    second", expected="x\x07", hint="\udcff")
    assert str(error) == ("'\\x1b[2J\\nfoo'\n    second\n  expected: x\\x07\n  hint:     \\xff")


def test_tables_and_pages_show_control_characters() -> None:
    from edge_restore.report import cells

    assert "\x1b" not in cells.text_table(["a\x1b"], [["b\x1b[2J\n"]])
    assert len(cells.text_table(["a"], [["b\nc"]]).splitlines()) == 2


def test_json_of_undecodable_names_is_valid() -> None:
    for ascii_only in (False, True):
        text = json_text({"a": "\udcff\x1b\x9b"}, ascii_only=ascii_only)
        assert json.loads(harmless(text)) == {"a": "\ufffd\x1b\x9b"}
        assert decode(text) == {"a": "\ufffd\x1b\x9b"}
        assert text.isascii() or not ascii_only
        sound = {"a": "ä漢😀", "b": [1, 2.5, None, True], "c": {}}
        assert json_text(sound, ascii_only=ascii_only) == json.dumps(
            sound, indent=2, ensure_ascii=ascii_only
        )
        with pytest.raises(InternalError, match="JSON"):
            json_text({"a": float("inf")}, ascii_only=ascii_only)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/home/me/x.onnx"], "x.onnx"),
        (["--out=/home/me/x.onnx", "--weights", "../../secret/w.safetensors"],
         "--out=x.onnx --weights w.safetensors"),
        (["-o/home/me/x.engine"], "-ox.engine"),
        (["runs/mine/"], "mine"),
        (["~/a/b.toml", "a/../b.npz"], "b.toml b.npz"),
        (["--size", "720x1280", "--share", "0.5"], "--size 720x1280 --share 0.5"),
        (["--only", "/head/conv1", "body/conv2", "--out", "/x/y"],
         "--only /head/conv1 body/conv2 --out y"),
        (["--only=/head/conv1", "/x/y"], "--only=/head/conv1 /x/y"),
        (["/home/me/a b\x1b\udcff.npz"], "'a b\\x1b\\xff.npz'"),
    ],
)  # fmt: skip
def test_command_lines_of_cards_name_no_folders(arguments: list[str], expected: str) -> None:
    assert command_line.kept("p", arguments, verbatim=("--only",)) == f"p {expected}"
