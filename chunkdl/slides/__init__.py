"""From a slide file to pixels at a wished resolution, and facts about the slide.

`slide` is the protocol, `readers` has one file a format, `tissue` says where tissue is, `synthetic`
writes slides for tests and the demo. Imports `system` and `errors`.
"""
