"""Stain normalisation of patches: Macenko's and Reinhard's methods, and the colour spaces of both.

`normaliser` says what all have in common, `presets` has the published numbers. Stain augmentation
is in `chunkdl.patches.augmentation`. Imports `arithmetic` and `errors`.
"""
