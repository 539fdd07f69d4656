"""An S3-compatible bucket as a Backend: conditional writes, ranged and coalesced reads, retries, clear errors.

The only importer of obstore. Address and credentials come from the usual variables (AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …). A process that was forked after the store was used cannot use it: obstore's
threads do not survive fork, and it would hang; we say so instead.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from dataengine.errors import StoreError
from dataengine.store.backend import PROBE, Item, Missing

T = TypeVar("T")
ATTEMPTS = 6
FIRST_WAIT_S = 0.05
TIMEOUT_S = 30.0

_used_in: set[int] = set()
"""Processes, of this one and its ancestors, that started obstore's threads."""

_ADVICE = {
    "NoSuchBucket": "the bucket does not exist; create it or correct the address",
    "InvalidAccessKeyId": "the credentials are refused; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "SignatureDoesNotMatch": "the credentials are refused; check AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "access is denied; check the credentials and the bucket's policy",
    "MissingAccessKeyId": "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "InstanceCredential": "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "401 Unauthorized": "the credentials are refused; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "403 Forbidden": "access is denied; check the credentials and the bucket's policy",
    "error sending request": "the server cannot be reached; check AWS_ENDPOINT_URL and the network",
}
_PERMANENT = tuple(_ADVICE)[:-1]


def open_bucket(url: str, attempts: int = ATTEMPTS, timeout_s: float = TIMEOUT_S) -> "BucketBackend":
    """Backend of `s3://bucket/prefix`; nothing is sent yet. Raises StoreError for an address without a bucket."""
    bucket, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
    if not bucket:
        raise StoreError(f"{url}: no bucket named; give s3://BUCKET/PREFIX")
    return BucketBackend(bucket, prefix, attempts, timeout_s)


class BucketBackend:
    """A prefix of a bucket. Pickled by its address; the client is made at the first use."""

    def __init__(self, bucket: str, prefix: str, attempts: int = ATTEMPTS, timeout_s: float = TIMEOUT_S) -> None:
        self.bucket, self.prefix, self.attempts, self.timeout_s = bucket, prefix, attempts, timeout_s
        self._client: Any = None

    def __getstate__(self) -> tuple[str, str, int, float]:
        return self.bucket, self.prefix, self.attempts, self.timeout_s

    def __setstate__(self, state: tuple[str, str, int, float]) -> None:
        self.__init__(*state)

    @property
    def where(self) -> str:
        return "/".join(["s3:/", self.bucket, *([self.prefix] if self.prefix else [])])

    def get(self, key: str) -> bytes:
        import obstore

        return self._run(key, lambda: bytes(obstore.get(self._store(), key).bytes()))

    def get_tagged(self, key: str) -> tuple[bytes, str] | None:
        import obstore

        def body() -> tuple[bytes, str]:
            found = obstore.get(self._store(), key)
            return bytes(found.bytes()), str(found.meta["e_tag"])

        try:
            return self._run(key, body)
        except Missing:
            return None

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Ranges less than 1 MB apart travel as one request."""
        import obstore

        if not ranges:
            return []
        starts, lengths = [r[0] for r in ranges], [r[1] for r in ranges]
        return self._run(key, lambda: [bytes(b) for b in obstore.get_ranges(self._store(), key, starts=starts, lengths=lengths)])

    def get_tail(self, key: str, length: int) -> bytes:
        import obstore

        return self._run(key, lambda: bytes(obstore.get(self._store(), key, options={"range": {"suffix": length}}).bytes()))

    def put_new(self, key: str, data: bytes) -> bool:
        """An attempt whose answer got lost is told from a racer's by the content: equal content is a win for both."""
        return self._conditional(key, data, "create")

    def put(self, key: str, data: bytes) -> None:
        import obstore

        self._run(key, lambda: obstore.put(self._store(), key, data, use_multipart=False))

    def swap(self, key: str, tag: str | None, data: bytes) -> bool:
        return self._conditional(key, data, "create" if tag is None else {"e_tag": tag})

    def items(self, prefix: str) -> list[Item]:
        import obstore

        folder = prefix.rpartition("/")[0] or None

        def body() -> list[Item]:
            listed = (about for page in obstore.list(self._store(), folder) for about in page)
            found = [Item(a["path"], a["size"], a["last_modified"].timestamp()) for a in listed if a["path"].startswith(prefix)]
            return sorted(found, key=lambda i: i.key)

        return self._run(prefix, body)

    def delete(self, keys: Iterable[str]) -> None:
        import obstore

        chosen = list(keys)
        if chosen:
            self._run(chosen[0], lambda: obstore.delete(self._store(), chosen), ignore_missing=True)

    def check_conditional_writes(self) -> None:
        """Raise StoreError unless create-if-absent and compare-and-swap work here; many servers ignore the conditions."""
        key = f"{PROBE}/{uuid.uuid4().hex}"
        try:
            created = self._once(key, b"1", "create")
            again = self._once(key, b"2", "create")
            held = self.get_tagged(key)
            tag = held[1] if held else ""
            swapped = self._once(key, b"3", {"e_tag": tag})
            stale = self._once(key, b"4", {"e_tag": tag})
        finally:
            self.delete([key])
        if not (created and swapped) or again or stale:
            broken = "If-None-Match" if again or not created else "If-Match"
            raise StoreError(
                f"{self.where}: the server does not honour conditional writes ({broken}), so two writers could overwrite each "
                "other; use a store that has them, or write to a local folder and copy it"
            )

    # ---- parts -------------------------------------------------------------------------------------------------

    def _store(self) -> Any:
        if self._client is None:
            self._client = _make_client(self.bucket, self.prefix, self.timeout_s, self.where)
            _used_in.add(os.getpid())
        return self._client

    def _once(self, key: str, data: bytes, mode: Any) -> bool:
        """A conditional write as the server answers it; False when its condition failed."""
        return self._write_if(key, data, mode)[0]

    def _conditional(self, key: str, data: bytes, mode: Any) -> bool:
        written, tries = self._write_if(key, data, mode)
        if written or tries < 2:
            return written
        now = self.get_tagged(key)  # an earlier try may have arrived although its answer did not
        return now is not None and now[0] == data

    def _write_if(self, key: str, data: bytes, mode: Any) -> tuple[bool, int]:
        """(whether it was written, how many tries that took)."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        tries = 0

        def body() -> bool:
            nonlocal tries
            tries += 1
            try:
                obstore.put(self._store(), key, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            return True

        return self._run(key, body), tries

    def _run(self, key: str, body: Callable[[], T], ignore_missing: bool = False) -> T:
        """`body` with retries; obstore's exceptions become StoreError of one line."""
        if _used_in and os.getpid() not in _used_in:
            raise StoreError(
                f"{self.where}: this process was forked after the store was opened, which its client does not survive; "
                "start workers with 'spawn'"
            )
        wait_s = FIRST_WAIT_S
        for left in range(self.attempts - 1, -1, -1):
            try:
                return body()
            except Exception as error:
                message = str(error)
                missing = isinstance(error, FileNotFoundError) and "NoSuchBucket" not in message
                if missing and not ignore_missing:
                    raise Missing(self.where, key) from None
                if missing:
                    return None  # pyright: ignore[reportReturnType] - only `delete` asks for it, and returns nothing
                if not type(error).__module__.startswith("obstore") and not isinstance(error, (OSError, PermissionError)):
                    raise
                if left == 0 or any(word in message for word in _PERMANENT):
                    raise StoreError(explain(self.where, message)) from None
            time.sleep(wait_s)
            wait_s *= 2
        raise AssertionError("unreachable")


def explain(where: str, message: str) -> str:
    """One line for what an object store said."""
    for word, advice in _ADVICE.items():
        if word in message:
            return f"{where}: {advice}"
    first = message.split("\n")[0]
    return f"{where}: the store failed ({first[:200]}); try again"


def _make_client(bucket: str, prefix: str, timeout_s: float, where: str) -> Any:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError:
        raise StoreError("object stores need the package obstore; install the extra `cloud`") from None
    http = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    try:
        return S3Store(
            bucket,
            prefix=prefix or None,
            client_options={"allow_http": http, "timeout": f"{timeout_s}s", "connect_timeout": "5s"},
            retry_config={"max_retries": 0},
        )
    except BaseError as error:
        raise StoreError(explain(where, str(error))) from None
