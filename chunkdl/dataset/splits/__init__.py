"""Which patients train and which test: parts and folds, by class and by site, and their files.

Nothing here looks into a slide. Imports the patients, and of `slides` only how a path names a file.
"""
