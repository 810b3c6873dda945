"""The schema's history, one revision per file. Revisions are run by `provisioning.database.migrate` alone.

A file is named `<revision>_<what it does>.py` and revisions sort by name. A replica of the release before may still be
serving while one runs, so a revision only adds, and takes away what no running release reads.
"""
