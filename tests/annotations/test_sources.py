"""Which file belongs to which slide: decided by names, never by chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from chunkdl.annotations.names import stem_of
from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.sources import file_of_each_slide, files_below
from chunkdl.errors import AnnotationError

ANY = ReadingOptions()


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("/data/CMU-1.svs", "CMU-1"),
        ("CMU-1.geojson", "CMU-1"),
        ("CMU-1.svs.geojson.gz", "CMU-1"),
        ("her2.ome.tif", "her2"),
        ("/a.b/slide.v2.NDPI", "slide.v2"),
        ("C:\\scans\\one.svs", "one"),
        (".geojson", ".geojson"),
        ("no suffix", "no suffix"),
    ],
)
def test_the_stem_is_the_name_without_folder_and_suffixes(path: str, stem: str) -> None:
    """Only those that slides and annotations have are taken off."""
    assert stem_of(path) == stem


def test_slides_find_their_files_by_name() -> None:
    """None where there is none; other files are passed over."""
    files = ["/a/one.geojson", "/a/b/two.svs.xml", "/a/four.csv.gz", "/a/notes.txt", "/a/x.json"]
    slides = ["/s/one.svs", "/s/two.svs", "/s/three.svs", "/s/four.ome.tif"]
    found = file_of_each_slide(slides, files, ANY)
    assert found == ["/a/one.geojson", "/a/b/two.svs.xml", None, "/a/four.csv.gz"]


def test_two_files_of_one_slide_are_an_error_that_names_both() -> None:
    """Until one format is chosen."""
    files = ["/a/one.geojson", "/a/one.xml"]
    with pytest.raises(AnnotationError, match=r"one\.svs: /a/one\.geojson and /a/one\.xml"):
        file_of_each_slide(["/s/one.svs"], files, ANY)
    for kind, expected in (("geojson", files[0]), ("asap", files[1]), ("mask", None)):
        options = ReadingOptions(format=kind)  # type: ignore[arg-type]
        assert file_of_each_slide(["/s/one.svs"], files, options) == [expected]


def test_two_slides_of_one_file_are_an_error_that_names_both() -> None:
    """One of them would have another's tumours."""
    with pytest.raises(AnnotationError, match=r"/s/a/one\.svs and /s/b/one\.ndpi"):
        file_of_each_slide(["/s/a/one.svs", "/s/b/one.ndpi"], ["/a/one.xml"], ANY)
    again = file_of_each_slide(["/s/one.svs"] * 2, ["/a/one.xml"], ANY)
    assert again == ["/a/one.xml"] * 2
    with pytest.raises(AnnotationError, match="two slides"):
        file_of_each_slide(["/s/one.tif#image=0", "/s/one.tif#image=1"], ["/a/one.xml"], ANY)


def test_a_slide_is_no_mask_of_itself_or_of_others() -> None:
    """Slides and annotations may lie in one folder; pictures are masks where classes are given."""
    files = ["/s/one.geojson", "/s/one.tif", "/s/./two.tif", "/s/two.png"]
    slides = ["/s/one.tif", "/s/two.tif"]
    assert file_of_each_slide(slides, files, ANY) == ["/s/one.geojson", None]
    masks = ReadingOptions(mask_classes={1: "tumor"})
    assert file_of_each_slide(slides, files, masks) == ["/s/one.geojson", "/s/two.png"]
    masks = ReadingOptions(mask_classes={1: "tumor"}, format="mask")
    assert file_of_each_slide(slides, files, masks) == [None, "/s/two.png"]


def test_dicom_slides_may_have_the_name_of_their_folder() -> None:
    """The file of a series has a name that says nothing; its own name comes first."""
    slides = ["/s/case-1/level-0.dcm", "/s/case-2/other.dcm"]
    files = ["/a/case-1.xml", "/a/case-2.xml", "/a/other.xml"]
    assert file_of_each_slide(slides, files, ANY) == ["/a/case-1.xml", "/a/other.xml"]


def test_folders_are_searched_with_their_subfolders(tmp_path: Path) -> None:
    """Hidden names are left out, and a folder that is not there is an error."""
    for name in ("b.xml", "sub/a.xml", ".hidden.xml", ".git/c.xml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert files_below(str(tmp_path)) == [str(tmp_path / "b.xml"), str(tmp_path / "sub/a.xml")]
    with pytest.raises(AnnotationError, match="cannot be read: No such file"):
        files_below(str(tmp_path / "nowhere"))
