"""Data sets of other tools and layouts, made into this project's.

One module for each kind yields plain records (:mod:`~dsctool.data.importing.record`); one writer
(:mod:`~dsctool.data.importing.writing`) makes the data set of them.
"""
