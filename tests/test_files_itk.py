"""What reading by SimpleITK needs: its errors in one line, without lines of its source."""

from pathlib import Path

import pytest
import SimpleITK as sitk

from unet3d_tutorial.files.itk import call_itk, quiet
from unet3d_tutorial.volume import BadScanError


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.dcm", "a.nii", "a.xyz"])
def test_an_error_of_itk_is_one_line_without_its_source(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"NRRD0004\ntype: nothing\n\nObjectType = Image\n")
    with pytest.raises(BadScanError) as error, quiet():
        call_itk(path, lambda: sitk.ReadImage(str(path)))
    text = str(error.value)
    assert text.startswith(f"{path} cannot be read: ") and "\n" not in text
    assert ".cxx" not in text and ".h:" not in text and "0x" not in text


def test_the_result_is_passed_on():
    assert call_itk(Path("a"), lambda: 7) == 7
