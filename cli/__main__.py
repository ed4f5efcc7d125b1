"""Where `git-fhir` begins, which is `python -m cli` where the command itself isn't installed."""

import gc

# What is imported stays: to look through it for garbage again and again would only delay the start.
gc.disable()
from cli.main import main  # noqa: E402

gc.freeze()
gc.enable()

if __name__ == "__main__":
    main(prog_name="git-fhir")
