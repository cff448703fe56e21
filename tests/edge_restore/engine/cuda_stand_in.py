"""A stand-in for the CUDA driver, compiled from C: it does nothing and writes down what it is told.

It shows that our ctypes calls pass the arguments that they should; nothing about a GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

LOG = "CUDA_STAND_IN_LOG"
FAIL = "CUDA_STAND_IN_FAIL"
"""Environment: the file to write to, and the name of a function that is to fail."""

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long long contexts = 0;

static int told(const char *name) {
    const char *path = getenv("CUDA_STAND_IN_LOG"), *failing = getenv("CUDA_STAND_IN_FAIL");
    if (path) {
        FILE *file = fopen(path, "a");
        fprintf(file, "%s\n", name);
        fclose(file);
    }
    return failing && !strcmp(failing, name) ? 218 : 0;
}

int cuInit(unsigned flags) { return told("cuInit"); }
int cuDeviceGet(int *device, int place) { *device = place; return told("cuDeviceGet"); }
int cuCtxGetCurrent(void **context) {
    *context = (void *)contexts;
    return told("cuCtxGetCurrent");
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)0x1000;
    return told("cuDevicePrimaryCtxRetain");
}
int cuCtxSetCurrent(void *context) {
    contexts = (long long)context;
    return told("cuCtxSetCurrent");
}
int cuGetErrorString(int error, const char **text) {
    *text = error == 218 ? "a PTX JIT compilation failed" : 0;
    return 0;
}
int cuModuleLoadDataEx(void **module, const char *text, unsigned count, int *keys, void **values) {
    if (count != 2 || keys[0] != 5 || keys[1] != 6 || (size_t)values[1] != 8192) return 1;
    strcpy(values[0], "line 1: what is this?");
    *module = (void *)(0x2000 + strlen(text));
    return told("cuModuleLoadDataEx");
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = (void *)((long long)module + 0x10000);
    return told("cuModuleGetFunction");
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void *stream, void **parameters, void **extra) {
    char line[4096];
    int i, used = sprintf(line, "cuLaunchKernel %p %u,%u,%u %u,%u,%u %u %p", function, gx, gy, gz,
                          bx, by, bz, shared, stream);
    if (extra) return 1;
    for (i = 0; i < 26; ++i) {
        if (i < 5 || i == 25) used += sprintf(line + used, " %p", *(void **)parameters[i]);
        else used += sprintf(line + used, " %d", *(int *)parameters[i]);
    }
    told(line);
    return told("cuLaunchKernel");
}

/* What edge_restore.backends.cuda calls through cuda-bindings, which asks for each function by
   name and may know it by another one than the header. */
static int capturing = 0;
int cuStreamBeginCapture_v2(void *stream, int mode) {
    char line[64];
    sprintf(line, "cuStreamBeginCapture %p %d", stream, mode);
    told(line);
    capturing = 1;
    return told("cuStreamBeginCapture");
}
int cuStreamEndCapture(void *stream, void **graph) {
    *graph = (void *)0x3000;
    capturing = 0;
    return told("cuStreamEndCapture");
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    *executable = (void *)0x4000;
    return told("cuGraphInstantiate");
}
int cuGraphLaunch(void *executable, void *stream) {
    char line[64];
    sprintf(line, "cuGraphLaunch %p %p", executable, stream);
    told(line);
    return capturing ? 1 : told("cuGraphLaunch");
}
int cuGraphDestroy(void *graph) { return told("cuGraphDestroy"); }
int cuGraphExecDestroy(void *executable) { return told("cuGraphExecDestroy"); }
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags,
                        int *status) {
    char other[128];
    *function = dlsym(RTLD_DEFAULT, name);
    sprintf(other, "%s_v2", name);
    if (!*function) *function = dlsym(RTLD_DEFAULT, other);
    if (!*function && !strcmp(name, "cuGraphInstantiate"))
        *function = (void *)cuGraphInstantiateWithFlags;
    if (status) *status = *function ? 0 : 1;
    return *function ? 0 : 500;
}
"""


def compile_stand_in(folder: Path) -> Path | None:
    """The folder with ``libcuda.so.1``, for LD_LIBRARY_PATH; None without a C compiler."""
    if shutil.which("gcc") is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "cuda.c"
    source.write_text(SOURCE, encoding="ascii")
    name = "libcuda.so.1"
    command = [
        "gcc",
        "-w",
        "-shared",
        "-fPIC",
        f"-Wl,-soname,{name}",
        "-o",
        folder / name,
        source,
        "-ldl",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def environment(folder: Path, log: Path, *libraries: Path, fail: str = "") -> dict[str, str]:
    """The variables for a child process that shall find the stand-in."""
    path = os.pathsep.join(str(each) for each in (folder, *libraries))
    return {**os.environ, "LD_LIBRARY_PATH": path, LOG: str(log), FAIL: fail}
