"""`python -m eprop`."""

from eprop.workshop.cli import main

if __name__ == "__main__":
    main()
