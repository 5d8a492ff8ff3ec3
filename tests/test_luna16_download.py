"""LUNA16 from a small copy of its archive on this computer.

What is missing comes, once, whatever interrupts it.
"""

import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from loopback import Server, serve
from test_luna16_archives import write_rar
from test_luna16_conversion import image_array, mask_array, write_mhd

from unet3d_tutorial.luna16 import archives, transfer
from unet3d_tutorial.luna16 import download as luna16_download
from unet3d_tutorial.luna16.conversion import convert
from unet3d_tutorial.luna16.download import RECORDS, download_luna16, read_record
from unet3d_tutorial.luna16.layout import LOCK, MASK_FOLDER
from unet3d_tutorial.luna16.transfer import DownloadError


def packed(folder: Path) -> bytes:
    memory = BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{folder.name}/{path.name}")
    return memory.getvalue()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All eleven archives, one scan in each subset, in two records."""
    monkeypatch.setattr(transfer, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(transfer, "LONGEST_WAIT_S", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for n in range(10):
        write_mhd(tmp_path / f"made/subset{n}/1.2.{n}.mhd", image_array(n))
        write_mhd(tmp_path / f"made/{MASK_FOLDER}/1.2.{n}.mhd", mask_array(), compressed=True)
    with serve() as server:
        for name in RECORDS:
            server.files[f"/{name}.zip"] = packed(tmp_path / "made" / name)
        for number in set(RECORDS.values()):
            server.record(number, [f"{name}.zip" for name in RECORDS if RECORDS[name] == number])
        yield server


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK)


def test_records_of_the_ten_subsets_and_the_masks():
    assert (
        RECORDS["subset6"] == RECORDS[MASK_FOLDER] == 3723295
        and RECORDS["subset7"] == RECORDS["subset9"] == 4121926
    )
    assert len(RECORDS) == 11


def test_all_of_it_comes_and_can_be_converted(server: Server, tmp_path: Path):
    server.faults["/subset3.zip"], server.faults["/subset8.zip"] = (
        ["drop", "503", "drop"],
        ["corrupt"],
    )
    assert sorted(download_luna16(tmp_path / "luna", api=server.url("/api"))) == sorted(RECORDS)
    assert names(tmp_path / "luna") == sorted(RECORDS)
    assert (
        len(convert(tmp_path / "luna", tmp_path / "out", num_validation=1, processes=1).converted)
        == 10
    )


def test_only_what_is_missing_is_asked_for(server: Server, tmp_path: Path):
    luna = tmp_path / "luna"
    assert download_luna16(luna, [9], api=server.url("/api")) == ["subset9", MASK_FOLDER]
    server.requests.clear()
    assert download_luna16(luna, [9], api=server.url("/api")) == [] and server.requests == []
    assert download_luna16(luna, [8, 9], api=server.url("/api")) == ["subset8"]
    assert [path for path, _ in server.requests] == ["/api/4121926", "/subset8.zip"]


def test_archives_that_the_reader_has_are_unpacked_without_a_network_and_kept(
    tmp_path: Path, server: Server
):
    luna = tmp_path / "luna"
    luna.mkdir()
    (luna / "subset0.zip").write_bytes(server.files["/subset0.zip"])
    scans = tmp_path / "made" / MASK_FOLDER
    write_rar(
        luna / f"{MASK_FOLDER}.rar",
        {f"{MASK_FOLDER}/{path.name}": path.read_bytes() for path in scans.iterdir()},
    )
    download_luna16(luna, [0], api="http://127.0.0.1:9")
    assert names(luna) == [MASK_FOLDER, f"{MASK_FOLDER}.rar", "subset0", "subset0.zip"]


def test_an_interrupted_call_goes_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    server.faults["/subset1.zip"] = ["drop", *["503"] * 50]
    with pytest.raises(DownloadError, match="subset1.zip"):
        download_luna16(tmp_path / "luna", [0, 1, 2], api=server.url("/api"))
    assert names(tmp_path / "luna") == ["download", "subset0"]
    server.faults.clear()
    server.requests.clear()
    download_luna16(tmp_path / "luna", [0, 1, 2], api=server.url("/api"))
    assert ("/subset0.zip", 0) not in server.requests and ("/subset1.zip", 0) not in server.requests
    assert names(tmp_path / "luna") == [MASK_FOLDER, "subset0", "subset1", "subset2"]


def test_two_callers_on_one_folder_fetch_each_file_once(server: Server, tmp_path: Path, capsys):
    for name in RECORDS:
        server.faults[f"/{name}.zip"] = ["drop"]
    with ThreadPoolExecutor(2) as both:
        for done in [
            both.submit(download_luna16, tmp_path / "luna", api=server.url("/api"))
            for _ in range(2)
        ]:
            done.result(120)
    assert names(tmp_path / "luna") == sorted(RECORDS)
    assert all(server.requests.count((f"/{name}.zip", 0)) == 1 for name in RECORDS)
    assert "Another process works on" in capsys.readouterr().out


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="luna: 11 archives and their scans need .* Make room"):
        download_luna16(tmp_path / "luna", api=server.url("/api"))
    assert not (tmp_path / "luna").exists() and {path for path, _ in server.requests} == {
        "/api/3723295",
        "/api/4121926",
    }


@pytest.mark.parametrize(
    "record",
    [
        b"<html>busy</html>",
        b"[]",
        b'{"files": [{"key": "subset0.zip"}]}',
        b'{"files": [{"key": "a", "size": 1, "checksum": "sha1:0", "links": {"self": "x"}}]}',
    ],
)
def test_a_record_of_another_form_is_refused(server: Server, record: bytes):
    server.files["/api/1"] = record
    with pytest.raises(DownloadError, match="/api/1: expected a record with files"):
        read_record(1, server.url("/api"))


def test_a_record_without_the_archive_is_refused(server: Server, tmp_path: Path):
    server.record(4121926, ["subset7.zip"])
    with pytest.raises(
        DownloadError, match="record 4121926 .* has no subset9.zip, but .'subset7.zip'"
    ):
        download_luna16(tmp_path / "luna", [9], api=server.url("/api"))


def test_subsets_have_numbers_from_0_to_9(tmp_path: Path):
    with pytest.raises(ValueError, match="subsets: expected numbers from 0 to 9, found 10"):
        download_luna16(tmp_path / "luna", [10])


def test_nothing_is_imported_for_downloads_until_they_begin():
    assert not hasattr(luna16_download, "pycurl")
