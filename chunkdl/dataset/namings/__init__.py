"""What file names of public data sets say of a slide: whose it is, and which labels it has.

One file a data set. Imports patients and tables; only `idc` looks into files.
"""
