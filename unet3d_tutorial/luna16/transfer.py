"""Download a large file completely or not at all, and resume after every interruption.

libcurl does the work: it follows redirects, uses the user's proxies (``https_proxy``), checks
certificates and the announced length, and detects a stalled connection. This module decides what to
do after a failure: resume, start again or give up.
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NoReturn

ATTEMPTS = 6  #: in a row without a byte of progress, until we give up
FIRST_WAIT_S = 1.0  #: after the first of them; doubled each time
LONGEST_WAIT_S = 60.0
STALLED_S = 60  #: a connection slower than 1 kB/s for this long is closed

Progress = Callable[[int], object]  #: called with the number of new bytes; negative if lost


class DownloadError(RuntimeError):
    """A file could not be downloaded. Bytes received so far are kept; the same call resumes."""


class _PassingError(Exception):
    """A failure that may not occur at the next attempt."""


class _CannotResumeError(_PassingError):
    """The server cannot send the rest of the file, only all of it."""


class _TooLongError(_PassingError):
    """The server sends more than it should."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, with its published size and checksum."""

    url: str
    size: int  #: bytes
    md5: str  #: hexadecimal


def _no_progress(count: int) -> None:
    """Report progress to nobody."""


def download_file(file: RemoteFile, path: Path, progress: Progress = _no_progress) -> Path:
    """Download to ``path``, which appears only when its size and MD5 sum are right.

    A broken connection is resumed. A file whose MD5 sum is wrong is downloaded once more from the
    beginning. An existing ``path`` is returned unchanged. Raises :class:`DownloadError` if attempts
    make no more progress or the sum is wrong twice, and ``OSError`` if the disk is full.
    """
    if path.is_file():
        progress(file.size)
        return path
    # Not written_whole: this file must survive a failed attempt, because the next call resumes from
    # it. So its name is fixed, and a lock on the folder keeps a second process away.
    part = path.with_name(path.name + ".part")
    part.touch()
    progress(part.stat().st_size)
    for _ in range(2):
        _resume_until_complete(file, part, progress)
        md5 = _md5(part)
        if md5 == file.md5:
            return part.replace(path)
        _begin_again(part, progress)
    raise DownloadError(
        f"{path.name} from {file.url} is not the published file: expected MD5 {file.md5}, "
        f"found {md5}, twice. Something between the archive and this computer alters it; "
        "try again from elsewhere"
    )


def download_bytes(url: str) -> bytes:
    """Return the content of a small file. Raises :class:`DownloadError`."""
    content = BytesIO()

    def request() -> None:
        content.seek(0)
        content.truncate()
        _get(url, content.write)

    _retry(request, content.tell, url, attempts=3)
    return content.getvalue()


# ------------------------------------------------------------------------------------- a large file


def _resume_until_complete(file: RemoteFile, part: Path, progress: Progress) -> None:
    def request() -> None:
        _resume(file, part, progress)

    def received() -> int:
        return part.stat().st_size

    _retry(request, received, file.url, size=file.size)


def _resume(file: RemoteFile, part: Path, progress: Progress) -> None:
    """Make one request for the bytes that are missing and append them."""
    start = part.stat().st_size
    if start == file.size:
        return
    if start > file.size:  # of another version of the file
        _begin_again(part, progress)
        start = 0
    try:
        with part.open("ab") as output:

            def write(data: bytes) -> None:
                if output.tell() + len(data) > file.size:
                    raise _TooLongError(
                        f"the server sends more than the {file.size} bytes that the record states"
                    )
                output.write(data)
                progress(len(data))

            _get(file.url, write, start)
    except (_CannotResumeError, _TooLongError):
        _begin_again(part, progress)
        raise


def _begin_again(part: Path, progress: Progress) -> None:
    progress(-part.stat().st_size)
    part.write_bytes(b"")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _retry(
    request: Callable[[], None],
    received: Callable[[], int],
    url: str,
    *,
    size: int | None = None,
    attempts: int = ATTEMPTS,
) -> None:
    """Repeat ``request`` until ``size`` bytes are ``received``; with ``None``, until it succeeds.

    Raises :class:`DownloadError` after ``attempts`` failures in a row without any progress.
    """
    failures = 0
    wait = FIRST_WAIT_S
    most = received()
    while True:
        try:
            request()
            if size is None or received() == size:
                return
            reason = f"the server sent {received()} of {size} bytes"
        except _PassingError as error:
            reason = str(error)
        if received() > most:
            most = received()
            failures = 0
            wait = FIRST_WAIT_S
        else:
            failures += 1
            wait = min(2 * wait, LONGEST_WAIT_S)
        if failures == attempts:
            raise DownloadError(
                f"{url}: {reason}. Is this computer connected? What has come is kept; "
                "the same command continues from there"
            )
        time.sleep(wait)


# ---------------------------------------------------------------------------------------- a request


def _get(url: str, write: Callable[[bytes], object], start: int = 0) -> None:
    """GET ``url``, starting at byte ``start``, and pass the data to ``write``.

    Raises what ``write`` raises, :class:`_PassingError` if another attempt may succeed, and
    :class:`DownloadError` if none will.
    """
    import pycurl  # needed only for downloads

    raised: list[BaseException] = []

    def keep_exception(data: bytes) -> int:
        try:
            write(data)
            return len(data)
        except BaseException as error:  # Ctrl-C too: libcurl would print it and continue
            raised.append(error)
            return -1

    curl = pycurl.Curl()
    for option, value in _options().items():
        curl.setopt(option, value)
    curl.setopt(pycurl.URL, url)
    curl.setopt(pycurl.RESUME_FROM_LARGE, start)
    curl.setopt(pycurl.WRITEFUNCTION, keep_exception)
    try:
        curl.perform()
        if start and curl.getinfo(pycurl.RESPONSE_CODE) == 416:
            raise _CannotResumeError(f"the server has nothing from byte {start} on")
    except pycurl.error as error:
        if raised:
            raise raised[0] from None
        _raise(error, curl.getinfo(pycurl.RESPONSE_CODE), url)
    finally:
        curl.close()


def _options() -> dict[int, object]:
    """The libcurl options that are the same for each request."""
    import certifi
    import pycurl

    web = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS  # not file:// or others that libcurl supports
    return {
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


def _raise(error: Exception, status: int, url: str) -> NoReturn:
    """Raise a libcurl error as one that may pass at the next attempt, or as one that will not."""
    import pycurl

    code, text = error.args
    if code == pycurl.E_RANGE_ERROR or status == 416:
        raise _CannotResumeError(text) from error
    # 408, 425 and 429: too slow, too early, too many requests.
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
    raise _PassingError(text) from error
