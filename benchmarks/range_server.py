"""A read-only S3 bucket over a folder, with a delay before every answer: `python benchmarks/range_server.py FOLDER DELAY_S`.

Prints its port. One process, one thread, no work but copying bytes, so that what is timed against it is the reader. Understands what
obstore's S3 client sends for reading: GET with a range, HEAD, and a listing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


def body_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(first, past the last) byte that a Range header names; None where it names none."""
    if not header:
        return None
    first, _, last = header.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def listing(folder: Path, bucket: str, prefix: str) -> bytes:
    """ListObjectsV2 of all keys with this prefix, in one page."""
    keys = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    items = "".join(
        f"<Contents><Key>{escape(k)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>x</ETag><Size>{(folder / k).stat().st_size}</Size></Contents>"
        for k in keys
        if k.startswith(prefix)
    )
    return f"<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()


def answer(folder: Path, method: str, target: str, headers: dict[str, str]) -> tuple[str, list[str], bytes]:
    """(status, headers, body) of one request."""
    url = urlsplit(target)
    bucket, _, key = unquote(url.path).lstrip("/").partition("/")
    if not key:
        return "200 OK", [], listing(folder, bucket, parse_qs(url.query).get("prefix", [""])[0])
    try:
        handle = os.open(folder / key, os.O_RDONLY)
    except OSError:
        return "404 Not Found", [], b"<Error><Code>NoSuchKey</Code></Error>"
    try:
        size = os.fstat(handle).st_size
        about = ['ETag: "x"', f"Last-Modified: {DATE}"]
        if method == "HEAD":
            return "200 OK", [*about, f"Content-Length: {size}"], b""
        part = body_range(headers.get("range"), size)
        start, stop = part or (0, size)
        data = os.pread(handle, stop - start, start)
        return (
            ("206 Partial Content", [*about, f"Content-Range: bytes {start}-{stop - 1}/{size}"], data) if part else ("200 OK", about, data)
        )
    finally:
        os.close(handle)


async def serve(folder: Path, delay_s: float) -> None:
    """Serve until killed."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := (await reader.readline()).decode():
                method, target, _ = line.split()
                headers = {}
                while (field := (await reader.readline()).decode().strip()) != "":
                    name, _, value = field.partition(":")
                    headers[name.lower()] = value.strip()
                await asyncio.sleep(delay_s)
                status, extra, body = answer(folder, method, target, headers)
                length = [] if method == "HEAD" and status.startswith("200") else [f"Content-Length: {len(body)}"]
                writer.write("\r\n".join([f"HTTP/1.1 {status}", *extra, *length, "", ""]).encode() + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
