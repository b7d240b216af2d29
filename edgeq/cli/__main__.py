"""`python -m edgeq.cli`: the command line without the console script."""

from edgeq.cli import main

main()
