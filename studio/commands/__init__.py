"""The words of the command line, one module a group; see ``docs/cli.md``."""
