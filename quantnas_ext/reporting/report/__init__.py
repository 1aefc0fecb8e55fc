"""The report on runs: one HTML file that needs nothing else, with its picture, table and data beside it.

``trials`` reads run folders and sweeps, ``contents`` makes plain data of them, ``document`` the page from these data.
"""
