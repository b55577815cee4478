"""``python -m onnxprune``, and the command ``onnxprune``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; an interrupt while it is imported, or when it is done, ends it without a traceback."""
    try:
        import signal

        from onnxprune.cli import main as run

        try:
            run()
        finally:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
