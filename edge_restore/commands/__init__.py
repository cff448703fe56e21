"""The commands of `edge-restore`, one module each.

A command is a function of its parsed options that returns the exit code; its docstring is its help
text. `add_arguments` beside it declares the options. What a command needs is imported when it
runs, so that every ``--help`` works on a machine where nothing else is installed.
"""
