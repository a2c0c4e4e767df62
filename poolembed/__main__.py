"""``python -m poolembed``, which is also how ``torchrun`` starts the command line."""

from poolembed.cli import main

if __name__ == "__main__":
    main()
