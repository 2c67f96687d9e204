"""The processes of chunkdl: thin shells that make happen what the library decides.

`coordinator`, `loader`, `collector`, `scheduler`, `server` and `surveyor` are the programs. Imports
`chunkdl` up to `service`, and nothing of `consumers`; the library starts them by name and imports
none.
"""
