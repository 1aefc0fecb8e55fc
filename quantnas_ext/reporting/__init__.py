"""What a finished search and training look like: plots, architecture drawings, pictures and tables.

Nothing is imported here, so that a text table does not cost the import of matplotlib; take the functions from
``distributions``, ``drawing``, ``comparison`` and ``table``.
"""
