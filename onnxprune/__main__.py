"""``python -m onnxprune``, and the command ``onnxprune``."""

from __future__ import annotations

import sys
import warnings

__all__ = ["main"]


def main() -> None:
    """Run the command line; an interrupt while it is imported, or when it is done, ends it without a traceback."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries warn of, with a line of their source, is not for users; -W shows it
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
