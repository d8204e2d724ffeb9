"""`python -m onetrunk` is `onetrunk`."""

from onetrunk.cli import main

main()
