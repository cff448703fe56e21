"""What holds for all tests: they share the cores with the workers beside them."""

import os
import signal

if "PYTEST_XDIST_WORKER" in os.environ:  # before numpy, OpenCV and torch are imported
    os.environ["OMP_NUM_THREADS"] = "1"

# A shell starts what runs in the background with Ctrl-C ignored, and so it would stay for every
# process that a test starts and interrupts.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)
