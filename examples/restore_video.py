"""Restore a video and print where the time goes.

python examples/restore_video.py in.mp4 out.mp4 [MODEL]
"""

import sys

import edge_restore as er


def main() -> None:
    source, out, *model = sys.argv[1:]
    try:
        report = er.run(
            source,
            out,
            model=model[0] if model else "lmfn",
            on_frame=lambda frame: print(f"frame {frame.index} at {frame.seconds:.2f} s"),
        )
    except er.UserError as error:
        sys.exit(str(error))
    print(f"{report.frames_out} frames, {report.frames_per_second:.2f} a second")
    for stage, times in report.stages.items():
        print(f"{stage:8} p50 {times.p50:8.2f} ms   p99 {times.p99:8.2f} ms")


if __name__ == "__main__":
    main()
