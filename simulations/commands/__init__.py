"""The commands of ``xsite``, a file for each group.

Nothing heavy is imported at the top of these files: ``xsite --help`` answers at once.
"""
