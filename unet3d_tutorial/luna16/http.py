"""Download a large file whole or not at all, going on after every interruption.

libcurl does the work: it follows redirects, heeds the user's proxies (``https_proxy``), checks
certificates and that a server sends as much as it announced, and notices when a connection stalls.
Here is what to do then.
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

ATTEMPTS = 6  #: in a row without a byte of progress, until we give up
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  #: between attempts; doubled each time
STALLED_S = 60  #: a connection that is slower than 1 kB/s for so long is given up


class DownloadError(RuntimeError):
    """A file could not be had. What had come is kept, and the same call goes on from there."""


@dataclass(frozen=True)
class RemoteFile:
    """A file elsewhere, with what is known of it."""

    url: str
    size: int  #: bytes
    md5: str  #: hexadecimal


def download(
    file: RemoteFile, path: Path, progress: Callable[[int], object] = lambda count: None
) -> Path:
    """Download to ``path``, which appears when its size and MD5 sum are right.

    ``progress`` is told of each new byte.

    Bytes are kept in ``path.part``. A broken connection is resumed from there; a file whose sum is
    wrong is fetched once more from the beginning. Raises :class:`DownloadError` when there is no
    progress any more, ``OSError`` on a full disk.
    """
    if path.is_file():
        progress(file.size)
        return path
    part = path.with_name(path.name + ".part")
    part.touch()
    progress(part.stat().st_size)
    for _ in range(2):
        _retry(
            lambda: _resume(file, part, progress), lambda: part.stat().st_size, file.url, file.size
        )
        found = _md5(part)
        if found == file.md5:
            return part.replace(path)
        _begin_again(part, progress)
    raise DownloadError(
        f"{path.name} from {file.url} is not the published file: expected MD5 {file.md5}, found {found}, "
        "twice. Something between the archive and this computer alters it; try again from elsewhere"
    )


def download_text(url: str) -> bytes:
    """A small file as bytes. Raises :class:`DownloadError`."""
    text = BytesIO()

    def afresh() -> None:
        text.seek(0)
        text.truncate()
        _request(url, text.write)

    _retry(afresh, text.tell, url, attempts=3)
    return text.getvalue()


def _resume(file: RemoteFile, part: Path, progress: Callable[[int], object]) -> None:
    """Make one request for the bytes that are missing and append them."""
    if (have := part.stat().st_size) == file.size:
        return
    if have > file.size:  # of another version of the file
        have = _begin_again(part, progress)
    with part.open("ab") as output:

        def write(data: bytes) -> None:
            if output.tell() + len(data) > file.size:
                raise TooLong(
                    f"the server sends more than the {file.size} bytes that the record states"
                )
            output.write(data)
            progress(len(data))

        try:
            _request(file.url, write, have)
            return
        except (CannotResume, TooLong) as error:
            reason = error
    _begin_again(part, progress)
    raise reason


def _begin_again(part: Path, progress: Callable[[int], object]) -> int:
    progress(-part.stat().st_size)
    return part.write_bytes(b"")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


class Passing(Exception):
    """A failure that may be gone at the next attempt."""


class CannotResume(Passing):
    """The server has no part of the file to give, only all of it."""


class TooLong(Passing):
    """The server sends more than it should."""


def _retry(
    request: Callable[[], None],
    have: Callable[[], int],
    url: str,
    size: int | None = None,
    attempts: int = ATTEMPTS,
) -> None:
    """Repeat ``request`` until it has what it should; give up after ``attempts`` in a row without
    any progress.
    """
    failures = 0
    most = have()
    wait = FIRST_WAIT_S
    while True:
        try:
            request()
            if size is None or have() == size:
                return
            reason = f"the server sent {have()} of {size} bytes"
        except Passing as error:
            reason = str(error)
        failures, wait = (
            (0, FIRST_WAIT_S) if have() > most else (failures + 1, min(2 * wait, LONGEST_WAIT_S))
        )
        most = max(most, have())
        if failures == attempts:
            raise DownloadError(
                f"{url}: {reason}. Is this computer connected? What has come is kept; the same command goes "
                "on from there"
            )
        time.sleep(wait)


def _request(url: str, write: Callable[[bytes], object], start: int = 0) -> None:
    """GET ``url`` from byte ``start`` on.

    What ``write`` raises comes out; so does :class:`Passing`.
    """
    import certifi  # only who downloads needs them
    import pycurl

    raised: list[BaseException] = []

    def keep_exception(data: bytes) -> int:
        try:
            write(data)
            return len(data)
        except BaseException as error:  # Ctrl-C too: libcurl would print it and go on
            raised.append(error)
            return -1

    curl = pycurl.Curl()
    web = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
    options = {
        pycurl.URL: url,
        pycurl.RESUME_FROM_LARGE: start,
        pycurl.WRITEFUNCTION: keep_exception,
        pycurl.FAILONERROR: True,
        pycurl.PROTOCOLS: web,
        pycurl.REDIR_PROTOCOLS: web,
        pycurl.FOLLOWLOCATION: True,
        pycurl.MAXREDIRS: 5,
        pycurl.CONNECTTIMEOUT: 30,
        pycurl.LOW_SPEED_LIMIT: 1000,
        pycurl.LOW_SPEED_TIME: STALLED_S,
        pycurl.NOSIGNAL: True,
        pycurl.CAINFO: os.environ.get("SSL_CERT_FILE", certifi.where()),
        pycurl.USERAGENT: "unet3d-tutorial",
        pycurl.BUFFERSIZE: 1 << 19,
    }
    for option, value in options.items():
        curl.setopt(option, value)
    try:
        curl.perform()
        if start and curl.getinfo(pycurl.RESPONSE_CODE) == 416:
            raise CannotResume(f"the server has nothing from byte {start} on")
    except pycurl.error as error:
        if raised:
            raise raised[0] from None
        _raise(error, curl.getinfo(pycurl.RESPONSE_CODE), url)
    finally:
        curl.close()


def _raise(error: Exception, status: int, url: str) -> None:
    """Sort libcurl's errors into those that may pass and those that will not."""
    import pycurl

    code, text = error.args
    if code == pycurl.E_RANGE_ERROR or status == 416:
        raise CannotResume(text) from error
    if 400 <= status < 500 and status not in (408, 425, 429):
        raise DownloadError(
            f"{url}: the server answered {status}, which another attempt will not change"
        ) from error
    if code in (
        pycurl.E_URL_MALFORMAT,
        pycurl.E_UNSUPPORTED_PROTOCOL,
        pycurl.E_PEER_FAILED_VERIFICATION,
    ):
        raise DownloadError(f"{url}: {text}") from error
    raise Passing(text) from error
