"""Files that are whole or not there: whatever happens while they are written."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from unet3d_tutorial.files import whole
from unet3d_tutorial.files.whole import is_temporary, written_whole

HOST = re.sub(r"[\W_]", "", socket.gethostname())[:24]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ended_process() -> int:
    """The number of a process that has just ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def abandoned(name: str, process: int) -> str:
    stem, dot, suffixes = name.partition(".")
    return f".{stem}.part-{HOST}-{process}-00c0ffee{dot}{suffixes}"


def test_the_content_appears_at_the_end_of_the_block(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with written_whole(path) as part:
        part.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "name", ["mask.nii.gz", "1.2.840.nii.gz", "last.ckpt", "LOCK", ".uploaded.json"]
)
def test_the_temporary_name_is_told_apart_and_ends_as_the_file_does(tmp_path: Path, name: str):
    with written_whole(tmp_path / name) as part:
        assert part.parent == tmp_path and part.name != name
        assert part.name.endswith("".join(Path(name).suffixes))
        assert is_temporary(part) and not is_temporary(tmp_path / name)
        assert f"-{os.getpid()}-" in part.name and HOST in part.name
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["m.part.nii.gz", "a.part-1.nii.gz", ".hidden.nii.gz", "part-"])
def test_names_that_a_user_may_give_are_not_temporary(name: str):
    assert not is_temporary(name)


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_after_an_exception_the_old_file_is_there_and_nothing_else(tmp_path: Path, error: type):
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(error), written_whole(path) as part:
        part.write_text("half", encoding="utf-8")
        raise error
    assert path.read_text(encoding="utf-8") == "old" and names(tmp_path) == ["a.txt"]


def test_after_an_exception_a_new_file_is_not_there(tmp_path: Path):
    with pytest.raises(ValueError), written_whole(tmp_path / "a.txt") as part:
        part.write_text("half", encoding="utf-8")
        raise ValueError
    assert names(tmp_path) == []


def test_a_writer_that_removed_its_file_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(FileNotFoundError), written_whole(path) as part:
        part.unlink()
    assert path.read_text(encoding="utf-8") == "old"


def test_nothing_is_written_through_a_link_at_the_temporary_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(whole.secrets, "token_hex", lambda _: "guessed")
    secret = tmp_path / "secret"
    secret.write_text("mine", encoding="utf-8")
    folder = tmp_path / "shared"
    folder.mkdir()
    link = folder / f".a.part-{HOST}-{os.getpid()}-guessed.txt"
    link.symlink_to(secret)
    with pytest.raises(FileExistsError), written_whole(folder / "a.txt") as part:
        part.write_text("yours", encoding="utf-8")
    assert secret.read_text(encoding="utf-8") == "mine"


def test_a_link_to_a_file_is_replaced_and_the_file_stays(tmp_path: Path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with written_whole(tmp_path / "link") as part:
        part.write_text("new", encoding="utf-8")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["mask.nii.gz", ".uploaded.json", "log"])
def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path: Path, name: str):
    (tmp_path / abandoned(name, ended_process())).write_text("half", encoding="utf-8")
    with written_whole(tmp_path / name) as part:
        part.write_text("whole", encoding="utf-8")
    assert names(tmp_path) == [name]


def test_a_writer_that_is_really_killed_leaves_what_the_next_one_removes(tmp_path: Path):
    code = (
        "import os, sys\n"
        "from unet3d_tutorial.files.whole import written_whole\n"
        "with written_whole(sys.argv[1]):\n"
        "    os._exit(9)\n"
    )
    path = tmp_path / "mask.nii.gz"
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 9
    assert len(names(tmp_path)) == 1
    with written_whole(path):
        pass
    assert names(tmp_path) == ["mask.nii.gz"]


def test_what_is_not_ours_to_remove_is_kept(tmp_path: Path):
    ended = ended_process()
    kept = [
        "m.part.nii.gz",  # a user's own file
        abandoned("m.nii.gz", os.getppid()),  # a process that runs
        abandoned("other.nii.gz", ended),  # of another file
        abandoned("m.txt", ended),
        f".m.part-elsewhere-{ended}-00c0ffee.nii.gz",  # of another machine
        f".m.part-{HOST}-{10**30}-00c0ffee.nii.gz",  # no process has such a number
        f".m.part-{HOST}-x-00c0ffee.nii.gz",
    ]
    for name in kept:
        (tmp_path / name).write_text("kept", encoding="utf-8")
    with written_whole(tmp_path / "m.nii.gz"):
        pass
    assert names(tmp_path) == sorted([*kept, "m.nii.gz"])


def test_of_two_writers_at_once_the_last_to_end_leaves_one_whole_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    with written_whole(path) as first:
        first.write_text("first", encoding="utf-8")
        with written_whole(path) as second:
            assert first != second and first.exists()
            second.write_text("second", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "second"
    assert path.read_text(encoding="utf-8") == "first" and names(tmp_path) == ["a.txt"]


def test_many_processes_at_once_leave_one_whole_file(tmp_path: Path):
    code = (
        "import sys\n"
        "from unet3d_tutorial.files.whole import written_whole\n"
        "for _ in range(50):\n"
        "    with written_whole(sys.argv[1]) as part:\n"
        "        part.write_text(sys.argv[2] * 10000, encoding='utf-8')\n"
    )
    path = tmp_path / "a.txt"
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), letter]) for letter in "abc"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    text = path.read_text(encoding="utf-8")
    assert len(text) == 10000 and len(set(text)) == 1 and names(tmp_path) == ["a.txt"]


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path):
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "none" / "a.txt"):
        pytest.fail("there is nothing to write to")


def test_the_file_has_the_usual_rights(tmp_path: Path):
    (tmp_path / "usual").write_text("", encoding="utf-8")
    with written_whole(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "usual").stat().st_mode
