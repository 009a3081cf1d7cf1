"""The console script `pygan`: the command line, once it is imported, which takes torch's two seconds.

It lies outside the package because importing anything of pygan imports torch.
"""

import os
import signal


def main() -> int:
    """Run the command line and return its exit code; Ctrl-C while it is imported ends it at once, with 130."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in a shell's background
        # Not by an exception: of those, some that import things make others.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        from pygan import cli

        signal.signal(signal.SIGINT, signal.default_int_handler)
    from pygan import cli

    return cli.main()
