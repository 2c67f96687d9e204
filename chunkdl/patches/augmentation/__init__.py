"""Augmentation of patches, row by row in numpy or in whole batches in torch, from keys of the rows.

`operation` says what an operation is, `augment` puts several in order, `named` makes them of names
in a file, `random_numbers` gives each row its own. Imports `arithmetic`, `stain` and `errors`.
"""
