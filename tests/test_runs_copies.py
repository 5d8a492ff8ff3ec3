"""Copies from and to a store: a real server of the S3 protocol here, and stores that fail."""

import os
import shutil
import stat
import sys
import types

import pytest

from unet3d_tutorial.config import Config, RemoteConfig
from unet3d_tutorial.runs.copies import (
    COPIED,
    UPLOADED,
    copy_data,
    copy_file_from_store,
    copy_from_store,
    copy_to_store,
    is_complete_copy,
)
from unet3d_tutorial.runs.processes import Group
from unet3d_tutorial.runs.store import Entry, FsspecStore, open_store

FILES = {
    "train/image/a.nii.gz": b"a" * 1000,
    "train/seg/a.nii.gz": b"b" * 10,
    "val/image/c d.nii.gz": b"",
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("unet3d_tutorial.runs.copies.time.sleep", lambda seconds: None)


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """The address of an empty bucket. Keys and end point come by the environment, as for a user."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    files = s3fs.S3FileSystem(skip_instance_cache=True)
    if files.exists("book"):
        files.rm("book", recursive=True)
    files.mkdir("book")
    return "s3://book/phantoms"


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "here", FILES)
    return tmp_path / "here"


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (COPIED, UPLOADED)
    }


def test_to_a_real_server_and_back(bucket, folder, tmp_path):
    assert copy_to_store(folder, FsspecStore(bucket)) == 3
    assert FsspecStore(bucket).entries().keys() == {*FILES, UPLOADED}
    assert copy_from_store(FsspecStore(bucket), tmp_path / "there") == 3
    assert content(tmp_path / "there") == FILES and is_complete_copy(tmp_path / "there")
    assert copy_from_store(FsspecStore(bucket), tmp_path / "there") == 0
    assert copy_to_store(folder, FsspecStore(bucket)) == 0
    (folder / "train/seg/a.nii.gz").write_bytes(b"c" * 10)  # of the same size
    assert copy_to_store(folder, FsspecStore(bucket)) == 1
    # noticed, although its size is the same.
    assert copy_from_store(FsspecStore(bucket), tmp_path / "there") == 1
    assert content(tmp_path / "there") == content(folder)


def test_what_somebody_else_put_on_a_real_server_is_noticed(bucket, folder, tmp_path):
    copy_to_store(folder, FsspecStore(bucket))
    (tmp_path / "other").write_bytes(b"x" * 10)
    FsspecStore(bucket).put(tmp_path / "other", "train/seg/a.nii.gz")
    assert copy_to_store(folder, FsspecStore(bucket)) == 1
    assert (
        copy_from_store(FsspecStore(bucket), tmp_path / "there") == 3
        and content(tmp_path / "there") == FILES
    )


def test_one_file_from_a_real_server(bucket, folder, tmp_path):
    copy_to_store(folder, FsspecStore(bucket))
    path = copy_file_from_store(f"{bucket}/train/seg/a.nii.gz", tmp_path / "there", RemoteConfig())
    assert path.read_bytes() == b"b" * 10
    with pytest.raises(FileNotFoundError, match="remote.checkpoint_url: no such file: .*none.ckpt"):
        copy_file_from_store(f"{bucket}/none.ckpt", tmp_path, RemoteConfig())


class Flaky(FsspecStore):
    """A store that fails at some calls, or delivers half a file; ``plan`` says which."""

    def __init__(self, url, plan):
        super().__init__(url)
        self.plan = iter(plan)

    def get(self, path, target):
        step = next(self.plan, "well")
        if step == "break":
            target.write_bytes(b"torn")
            raise ConnectionError("the line broke")
        super().get(path, target)
        if step == "short":
            target.write_bytes(target.read_bytes()[:3])

    def put(self, source, path):
        step = next(self.plan, "well")
        if step == "break":
            raise ConnectionError("the line broke")
        super().put(source, path)


def test_a_failed_or_short_copy_is_made_again(folder, tmp_path):
    store = Flaky(f"file://{folder}", ["break", "short", "well", "well", "break"])
    assert copy_from_store(store, tmp_path / "there") == 3
    assert content(tmp_path / "there") == FILES


@pytest.mark.parametrize(
    ("fault", "message"), [("break", "the line broke"), ("short", "expected 1000 bytes, found 3")]
)
def test_a_copy_that_stays_short_is_an_error_and_not_taken_for_whole(
    fault, message, folder, tmp_path
):
    there = tmp_path / "there"
    with pytest.raises(OSError, match=message):
        copy_from_store(Flaky(f"file://{folder}", [fault] * 4), there)
    assert not is_complete_copy(there) and not list(there.rglob("*.part*"))
    assert copy_from_store(FsspecStore(f"file://{folder}"), there) == 3 and is_complete_copy(there)


class Unlisted(FsspecStore):
    """A store that cannot be listed the first ``failures`` times, with an exception of its own that
    is no ``OSError``.
    """

    class EndpointConnectionError(Exception):
        pass

    def __init__(self, url, failures):
        super().__init__(url)
        self.failures = failures

    def entries(self):
        self.failures -= 1
        if self.failures >= 0:
            raise self.EndpointConnectionError("no route")
        return super().entries()


def test_a_list_that_fails_is_asked_for_again(folder, tmp_path):
    assert copy_from_store(Unlisted(f"file://{folder}", 3), tmp_path / "there") == 3
    assert copy_to_store(folder, Unlisted(f"file://{tmp_path / 'store'}", 3)) == 3
    for copy in (
        lambda store: copy_from_store(store, tmp_path / "again"),
        lambda store: copy_to_store(folder, store),
    ):
        with pytest.raises(
            OSError, match="^listing the store failed 4 times: EndpointConnectionError: no route"
        ):
            copy(Unlisted(f"file://{folder}", 4))


def test_a_copy_that_was_damaged_later_is_noticed(folder, tmp_path):
    there = tmp_path / "there"
    copy_from_store(FsspecStore(f"file://{folder}"), there)
    (there / "train/image/a.nii.gz").write_bytes(b"a" * 999)
    assert not is_complete_copy(there)
    assert copy_from_store(FsspecStore(f"file://{folder}"), there) == 1 and content(there) == FILES


def test_a_file_of_the_same_size_is_copied_again_if_the_store_wrote_it_later(folder, tmp_path):
    there, store = tmp_path / "there", FsspecStore(f"file://{folder}")
    copy_from_store(store, there)
    replaced = folder / "train/seg/a.nii.gz"
    replaced.write_bytes(b"B" * 10)
    os.utime(replaced, ns=(0, 10**18))
    assert is_complete_copy(there) and not is_complete_copy(there, store.entries())
    assert (
        copy_from_store(store, there) == 1
        and content(there) == content(folder)
        and is_complete_copy(there, store.entries())
    )


def test_an_interrupted_copy_goes_on_and_notices_what_was_replaced_in_between(folder, tmp_path):
    there = tmp_path / "there"
    with pytest.raises(OSError, match="the line broke"):
        copy_from_store(Flaky(f"file://{folder}", ["well", "well", *["break"] * 4]), there)
    assert len(content(there)) == 2 and not is_complete_copy(there)
    with (there / COPIED).open("a", encoding="utf-8") as file:
        file.write('["train/se')  # killed while it wrote a line
    os.utime(folder / "train/image/a.nii.gz", ns=(0, 10**18))
    # The third, and the one that was replaced.
    assert copy_from_store(FsspecStore(f"file://{folder}"), there) == 2
    assert content(there) == FILES and is_complete_copy(there)


def test_a_marker_of_an_older_version_is_not_trusted(folder, tmp_path):
    there, store = tmp_path / "there", FsspecStore(f"file://{folder}")
    copy_from_store(store, there)
    old = '["train/seg/a.nii.gz", 10]\n"complete"\n'
    (there / COPIED).write_text(old, encoding="utf-8")
    assert not is_complete_copy(there) and copy_from_store(store, there) == 3


def test_lists_of_version_0_1_0_are_neither_trusted_nor_copied(folder, tmp_path):
    there = tmp_path / "there"
    for name in (".downloaded.json", ".uploaded.json"):
        write(there, {name: b"{}"})
        write(folder, {name: b"{}"})
    assert not is_complete_copy(there)
    assert copy_from_store(FsspecStore(f"file://{folder}"), there) == 3
    assert copy_to_store(folder, FsspecStore(f"file://{tmp_path / 'store'}")) == 3


def test_where_a_store_tells_no_version_the_size_decides(folder, tmp_path):
    class Silent(FsspecStore):
        def entries(self):
            return {path: Entry(entry.bytes) for path, entry in super().entries().items()}

    store = Silent(f"file://{folder}")
    assert (
        copy_from_store(store, tmp_path / "there") == 3
        and copy_from_store(store, tmp_path / "there") == 0
    )


def test_an_upload_that_breaks_leaves_no_list(folder, tmp_path):
    target = f"file://{tmp_path / 'store'}"
    with pytest.raises(OSError, match="the line broke"):
        copy_to_store(folder, Flaky(target, ["well", *["break"] * 4]))
    assert UPLOADED not in FsspecStore(target).entries()
    (folder / ".last.part-host-1-a.ckpt").write_bytes(b"half")
    assert copy_to_store(folder, FsspecStore(target)) == 3
    assert content(tmp_path / "store") == FILES


def test_moxing_is_used_where_it_exists(folder, tmp_path, monkeypatch):
    class File:
        @staticmethod
        def list_directory(root, recursive):
            return [str(path.relative_to(root)) for path in folder.rglob("*")]

        @staticmethod
        def stat(name):
            found = os.stat(name)
            return types.SimpleNamespace(
                length=found.st_size,
                mtime_nsec=found.st_mtime_ns,
                is_directory=stat.S_ISDIR(found.st_mode),
            )

        copy = staticmethod(shutil.copyfile)

    monkeypatch.setitem(sys.modules, "moxing", types.SimpleNamespace(file=File))
    store = open_store(str(folder), RemoteConfig(enable_modelarts=True))
    assert copy_from_store(store, tmp_path / "there") == 3 and content(tmp_path / "there") == FILES
    os.utime(folder / "train/seg/a.nii.gz", ns=(0, 10**18))
    assert copy_from_store(store, tmp_path / "there") == 1


def test_addresses_that_cannot_be_opened_are_named(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "moxing", None)
    with pytest.raises(ValueError, match="remote.enable_modelarts: expected the module moxing"):
        open_store("obs://bucket/data", RemoteConfig(enable_modelarts=True))
    with pytest.raises(ValueError, match="remote: nowhere://x cannot be opened"):
        open_store("nowhere://x", RemoteConfig())
    with pytest.raises(FileNotFoundError, match="is empty or does not exist"):
        copy_from_store(FsspecStore(f"file://{tmp_path / 'empty'}"), tmp_path / "there")


def test_one_process_of_each_host_copies(folder, tmp_path):
    config = Config.preset("quick").override(
        [f"remote.data_url=file://{folder}", f"data.data_path={tmp_path / 'there'}"]
    )
    copy_data(config, Group(rank_id=3, local_rank=1))
    assert not (tmp_path / "there").exists()
    copy_data(config, Group(rank_id=2, local_rank=0))
    assert content(tmp_path / "there") == FILES
