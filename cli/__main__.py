"""`python -m cli` is `git-fhir`, where the command itself isn't installed."""

from cli.main import main

main(prog_name="git-fhir")
