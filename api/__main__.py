"""`python -m api GITDIR`, or `--root DIR`: where a server begins."""

import gc
import sys

# What is imported stays: to look through it for garbage would take a fifth of the start, and write into memory that the
# workers share.
gc.disable()
from api.serving import main  # noqa: E402

gc.freeze()
gc.enable()

if __name__ == "__main__":
    sys.exit(main())
