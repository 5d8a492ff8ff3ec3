"""Unpacking archives: all of the scans or none, and nothing outside the folder."""

import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from unet3d_tutorial.luna16 import archives
from unet3d_tutorial.luna16.archives import ArchiveError, check_room, unpack

RAW = np.random.default_rng(0).integers(0, 9, 50_000).astype(np.uint8).tobytes()
SCANS = {
    "subset0/1.2.mhd": b"NDims = 3",
    "subset0/1.2.raw": RAW,
    "subset0/1.3.mhd": b"x",
    "subset0/1.3.zraw": b"",
}


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


STORED, PACKED = 0x30, 0x33


def write_rar(path: Path, files: dict[str, bytes], method: int = STORED) -> Path:
    """RAR 3 by hand: there is no free program that writes .rar."""

    def block(kind: int, flags: int, body: bytes, data: bytes = b"") -> bytes:
        rest = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(rest) & 0xFFFF) + rest + data

    content = b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6))
    for name, data in files.items():
        body = huffman(data) if method == PACKED else data
        fields = struct.pack(
            "<IIBIIBBHI",
            len(body),
            len(data),
            3,
            zlib.crc32(data),
            0x50210000,
            29,
            method,
            len(name),
            0,
        )
        content += block(0x74, 0x8000, fields + name.encode(), body)
    path.write_bytes(content + block(0x7B, 0x4000, b""))
    return path


def huffman(data: bytes) -> bytes:
    """``data`` packed as RAR 2.9 does, in the plainest way.

    Every byte has a code of its own, nothing is repeated.
    """
    bits = ["00"]  # a block by Huffman codes, with new tables
    lengths = {8: 1, 9: 2, 19: 2}  # the codes that tell the lengths of the codes: 0, 10 and 11
    bits += [f"{lengths.get(symbol, 0):04b}" for symbol in range(20)]
    bits += ["0"] * 255 + [
        "10"
    ] * 2  # bytes 0 to 254 have 8 bits, byte 255 and the end of the block 9
    bits += [f"11{125:07b}", f"11{0:07b}"]  # the other 136 + 11 symbols, for repetitions, have none
    bits += [f"{byte:08b}" if byte < 255 else "111111110" for byte in data]
    text = "".join(bits) + "111111111" + "00"  # the end of the block and of the file
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def write_rar5(path: Path, files: dict[str, bytes]) -> Path:
    """RAR 5 by hand, its files stored."""

    def number(value: int) -> bytes:  # seven bits a byte, the lowest first
        return bytes([value & 127 | 128]) + number(value >> 7) if value > 127 else bytes([value])

    def block(*fields: int | bytes, data: bytes = b"") -> bytes:
        body = b"".join(number(field) if isinstance(field, int) else field for field in fields)
        body = number(len(body)) + body
        return struct.pack("<I", zlib.crc32(body)) + body + data

    content = b"Rar!\x1a\x07\x01\x00" + block(1, 0, 0)
    for name, data in files.items():
        size, checksum = len(data), struct.pack("<I", zlib.crc32(data))
        content += block(
            2, 2, size, 4, size, 0o644, checksum, 0, 1, len(name.encode()), name.encode(), data=data
        )
    path.write_bytes(content + block(5, 0, 0))
    return path


WRITERS = {".zip": write_zip, ".rar": write_rar, "-5.rar": write_rar5}
TOOLS = ("unrar", "unar", "7z", "7zz", "bsdtar")


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("prefix", ["subset0/", "", "LUNA16/subset0/", "subset0\\"])
def test_scans_come_to_the_archives_own_folder(tmp_path: Path, suffix: str, prefix: str):
    files = {prefix + name.split("/")[1]: data for name, data in SCANS.items()} | {
        "readme.txt": b"no scan"
    }
    archive = WRITERS[suffix](tmp_path / f"subset0{suffix}", files)
    assert unpack(archive, tmp_path) == tmp_path / archive.stem
    found = {
        f"subset0/{path.name}": path.read_bytes() for path in (tmp_path / archive.stem).iterdir()
    }
    assert found == SCANS and sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [archive.stem, archive.name]
    )


def test_a_zip_of_the_working_folder_is_unpacked(tmp_path: Path):
    """As ``zip -r subset0.zip .`` writes it: the folder itself is the first entry."""
    archive = write_zip(
        tmp_path / "subset0.zip", {"./": b"", **{f"./{name}": data for name, data in SCANS.items()}}
    )
    assert len(list(unpack(archive, tmp_path).iterdir())) == len(SCANS)


@pytest.mark.skipif(not any(map(shutil.which, TOOLS)), reason=f"needs one of {', '.join(TOOLS)}")
def test_a_packed_rar_is_unpacked_by_the_tool_that_is_installed(tmp_path: Path):
    # As RAR itself writes folders.
    files = {name.replace("/", "\\"): data for name, data in SCANS.items()}
    files["subset0\\1.4.raw"] = bytes(range(256)) * 300
    archive = write_rar(tmp_path / "subset0.rar", files, PACKED)
    unpack(archive, tmp_path)
    assert {
        f"subset0\\{path.name}": path.read_bytes() for path in (tmp_path / "subset0").iterdir()
    } == files
    archive = damaged(write_rar(tmp_path / "subset1.rar", files, PACKED), 0.4)
    with pytest.raises(ArchiveError, match="subset1.rar is damaged"):
        unpack(archive, tmp_path)
    archive = write_rar(tmp_path / "subset2.rar", {**files, "..\\1.9.mhd": b"evil"}, PACKED)
    with pytest.raises(ArchiveError, match="leads out of the archive"):
        unpack(archive, tmp_path)
    assert not (tmp_path / "subset1").exists() and not (tmp_path / "subset2").exists()
    assert not list(tmp_path.parent.glob("1.9.mhd"))


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    "name",
    [
        "../1.9.mhd",
        "subset0/../../1.9.mhd",
        "/tmp/1.9.mhd",
        "C:/1.9.mhd",
        "C:1.9.mhd",
        "..\\1.9.mhd",
        "\\\\host\\share\\1.9.mhd",
        "subset0/..",
    ],
)
def test_a_path_that_leads_out_is_refused_before_anything_is_written(
    tmp_path: Path, suffix: str, name: str
):
    inside = tmp_path / "inside"
    inside.mkdir()
    archive = WRITERS[suffix](inside / f"subset0{suffix}", {**SCANS, name: b"evil"})
    with pytest.raises(
        ArchiveError, match=f"subset0{suffix}: the path .* leads out of the archive"
    ):
        unpack(archive, inside)
    assert list(tmp_path.rglob("*")) == [inside, archive]


def test_a_link_in_an_archive_is_never_made(tmp_path: Path):
    archive = write_zip(tmp_path / "subset0.zip", SCANS)
    link = zipfile.ZipInfo("subset0/1.4.raw")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc/passwd")
    unpack(archive, tmp_path)
    assert not (tmp_path / "subset0/1.4.raw").is_symlink()


def damaged(path: Path, position: float) -> Path:
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 0xFF
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_a_cut_archive_is_named(tmp_path: Path, suffix: str, share: float):
    archive = WRITERS[suffix](tmp_path / f"subset0{suffix}", SCANS)
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    with pytest.raises(ArchiveError, match=f"subset0{suffix}( is damaged|: expected scans)"):
        unpack(archive, tmp_path)
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_flipped_bit_is_found_by_the_checksum(tmp_path: Path, suffix: str):
    archive = damaged(WRITERS[suffix](tmp_path / f"subset0{suffix}", SCANS), 0.4)
    with pytest.raises(ArchiveError, match=f"subset0{suffix} is damaged"):
        unpack(archive, tmp_path)
    assert list(tmp_path.iterdir()) == [archive]


def test_what_is_packed_in_another_way_names_the_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = write_zip(tmp_path / "subset0.zip", SCANS)
    data = archive.read_bytes()
    # Deflate64.
    archive.write_bytes(
        data.replace(struct.pack("<H", 8) + data[10:14], struct.pack("<H", 9) + data[10:14])
    )
    with pytest.raises(ArchiveError, match="7-Zip"):
        unpack(archive, tmp_path)
    monkeypatch.setenv("PATH", "")
    archive = write_rar(tmp_path / "subset1.rar", SCANS, method=PACKED)
    with pytest.raises(ArchiveError, match="unrar, unar, 7z or bsdtar|damaged"):
        unpack(archive, tmp_path)
    assert not (tmp_path / "subset0").exists() and not (tmp_path / "subset1").exists()


def test_the_same_scan_twice_and_no_scan_at_all(tmp_path: Path):
    with pytest.raises(ArchiveError, match="found 1.2.mhd twice"):
        unpack(write_zip(tmp_path / "a.zip", {"x/1.2.mhd": b"", "y/1.2.mhd": b""}), tmp_path)
    with pytest.raises(ArchiveError, match="expected scans .*found none"):
        unpack(write_zip(tmp_path / "b.zip", {"readme.txt": b""}), tmp_path)


def test_what_an_interrupted_call_left_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = write_zip(tmp_path / "subset0.zip", SCANS)
    (tmp_path / ".subset0.part").mkdir()
    (tmp_path / ".subset0.part/1.9.mhd").write_text("from an earlier call", encoding="utf-8")
    (tmp_path / "subset0").mkdir()
    monkeypatch.setattr(
        archives.shutil, "copyfileobj", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, tmp_path)
    assert not list((tmp_path / "subset0").iterdir()) and not (tmp_path / ".subset0.part").exists()
    monkeypatch.undo()
    assert len(list(unpack(archive, tmp_path).iterdir())) == 4


def test_room_is_looked_at_even_for_a_folder_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    check_room(tmp_path / "a/b", 1, "files")
    with pytest.raises(
        OSError, match=r"a/b: 3 archives need 1e\+06 GB, and .* GB are free. Make room"
    ):
        check_room(tmp_path / "a/b", 1e15, "3 archives")
    archive = write_zip(tmp_path / "subset0.zip", SCANS)
    monkeypatch.setattr(
        archives.shutil, "disk_usage", lambda _: type("Usage", (), {"free": len(RAW)})
    )
    with pytest.raises(OSError, match="the scans of subset0.zip need"):
        unpack(archive, tmp_path)
    assert list(tmp_path.iterdir()) == [archive]
