"""What people or programs have drawn on a slide: read, mended, kept and rasterised.

`shapes` has the packed value that everything else works with, `reading` makes it from a file in any
format (one file a format), `kept` keeps it on disk for all processes, `rasterise` turns a rectangle
of it into class numbers, and `sources` says which file belongs to which slide. Imports `slides`,
`system` and `errors`.
"""
