"""Attacks: damaged and hostile input of every kind, fed to the real commands.

Each kind of input has its module here, with a mutator that is seeded by the kind's name and the
case's number. ``python -m tests.attacks --help`` says how to run them; docs/attacks.md has the
table of a whole run.
"""
