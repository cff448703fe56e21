"""The shipped PTX is what the source compiles to, uses the tensor cores, and spills nothing."""

import hashlib
import re
from pathlib import Path

import pytest

import export.deform_conv
from edge_restore.engine.plugin.kernels import load_index
from edge_restore.errors import InternalError

SOURCE = Path(export.deform_conv.__file__).with_name("kernel.py")
INDEX = load_index()


def test_the_shipped_files_were_compiled_from_this_source():
    assert INDEX.source_sha256 == hashlib.sha256(SOURCE.read_bytes()).hexdigest(), (
        "kernel.py has changed: python -m export.deform_conv compile "
        "--out edge_restore/engine/plugin/ptx"
    )


@pytest.fixture(scope="module")
def compiler():
    triton = pytest.importorskip("triton", reason="triton is not installed")
    if triton.__version__ != INDEX.triton:
        pytest.skip(f"the shipped files are Triton {INDEX.triton}'s, here is {triton.__version__}")
    from export.deform_conv import compiler

    return compiler


def test_every_job_has_its_file_and_no_file_is_left_over(compiler):
    from edge_restore.engine.plugin import kernels

    shipped = {path.name for path in Path(kernels.__file__).with_name("ptx").glob("*.ptx")}
    assert shipped == {kernel.file for kernel in INDEX.kernels}
    found = [(int(k.arch[3:]), k.precision, k.alignment) for k in INDEX.kernels]
    assert found == compiler.jobs()


@pytest.mark.parametrize("shipped", INDEX.kernels, ids=lambda kernel: kernel.file)
def test_compiled_again_it_is_the_same(shipped, compiler):
    """Compiling raises when registers spill or shared memory exceeds a plain launch's."""
    job = int(shipped.arch[3:]), shipped.precision, shipped.alignment
    again = compiler.compile_kernel(*job)
    assert again.text.encode() == shipped.ptx
    entry = compiler.entry(again)
    arguments = entry.pop("arguments")
    assert entry == {name: getattr(shipped, name) for name in entry}
    assert [(a["name"], a["type"]) for a in arguments] == [
        (a.name, a.type) for a in shipped.arguments
    ]


@pytest.mark.parametrize("kernel", INDEX.kernels, ids=lambda kernel: kernel.file)
def test_what_the_text_must_and_must_not_hold(kernel):
    text = kernel.ptx.decode()
    tensor = {"sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "sm_110": "tcgen05.mma"}
    instruction = tensor.get(kernel.arch, "mma.sync")
    if kernel.precision == "fp16":
        assert f"{instruction}" in text
        assert re.search(rf"{re.escape(instruction)}\S*f16", text), "of half precision"
    assert "tf32" not in text
    # No comment and no debug information, hence no path of the machine that compiled it.
    assert "/" not in text and ".loc" not in text and ".file" not in text
    assert re.search(r"\.entry (\w+)\(", text)[1] == kernel.entry
    assert len(re.findall(r"\.param ", text.partition(")")[0])) == len(kernel.arguments)
    assert f".reqntid {kernel.threads}\n" in text
    assert f".target {kernel.target}\n" in text
    assert ".version {}.{}\n".format(*divmod(kernel.ptx_version, 10)) in text
    if kernel.alignment > 1:  # 16-byte loads: four corners, and the weights
        assert text.count("ld.global.v4.b32") >= 5
    if kernel.capability <= (9, 0):
        assert kernel.ptx_version <= 85, "CUDA 12.6 of JetPack 6 takes PTX ISA 8.5"
    assert kernel.shared_bytes <= 48 << 10


def test_a_shape_that_spills_is_refused(compiler):
    from export.deform_conv.blocks import Blocks

    with pytest.raises(InternalError, match="spills registers on sm_80"):
        compiler.compile_kernel(80, "fp16", 8, Blocks(8, 8, 16, 3, 64, 2))


def test_a_hidden_parameter_that_is_used_is_not_stripped(compiler):
    ptx = ".entry deform_conv(\n\t.param .u64 a,\n\t.param .u64 deform_conv_param_1\n)\n{ret;}\n"
    assert "deform_conv_param_1" not in compiler.strip_hidden(ptx, 1)
    used = ptx.replace("ret;", "ld.param.b64 %rd1, [deform_conv_param_1];")
    with pytest.raises(InternalError, match="uses its hidden parameter 1"):
        compiler.strip_hidden(used, 1)
    with pytest.raises(InternalError, match="no entry"):
        compiler.strip_hidden(ptx, 3)


def test_writing_makes_a_folder_that_the_device_reads(compiler, tmp_path, monkeypatch):
    jobs = [(80, "fp16", 8), (120, "fp16", 8)]
    monkeypatch.setattr(compiler, "jobs", lambda: jobs)
    compiler.write_all(tmp_path)
    monkeypatch.setattr(compiler, "jobs", lambda: jobs[1:])
    (tmp_path / "somebody's.ptx").write_text("")
    compiler.write_all(tmp_path)
    index = load_index(tmp_path)
    assert [kernel.ptx for kernel in index.kernels]
    left = {file.name for file in tmp_path.glob("*.ptx")}
    assert left == {"deform_conv_sm_120_fp16.ptx", "somebody's.ptx"}
    assert index.kernels[0].target == "sm_120", "not sm_120a: other Blackwell GPUs take it too"
