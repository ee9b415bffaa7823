"""`python -m awqbench`."""

from awqbench.cli import main

if __name__ == "__main__":
    main()
