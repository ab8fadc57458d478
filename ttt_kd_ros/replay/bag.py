"""Reading and writing bags, mcap or sqlite3."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader, ReaderError, StoragePlugin, Writer

from ttt_kd_ros.data.folder import require_unused
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.replay.messages import TYPES, deserialize, serialize

STORAGES = ("mcap", "sqlite3")
DATA_SUFFIXES = (".mcap", ".db3", ".zstd")

_NEVER = QosTime(2147483647, 4294967295)
_LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, _NEVER, _NEVER,
    QosLiveliness.AUTOMATIC, _NEVER, False,
)  # fmt: skip


@contextmanager
def open_bag(path: str | Path) -> Iterator[Reader]:
    """A bag, open for reading: a directory with metadata.yaml, or one mcap or db3 file.

    Raises
    ------
    DataError
        If it is missing, of another format, or found damaged while it is read.
    """
    try:
        with Reader(Path(path)) as reader:
            yield reader
    except FileNotFoundError as error:
        raise DataError(f"'{path}' is no bag: {error}") from error
    except (ReaderError, sqlite3.Error, struct.error, zlib.error, EOFError, MemoryError) as error:
        raise DataError(f"bag '{path}' cannot be read, is it complete? ({error})") from error


def read(
    reader: Reader, topics: Collection[str], *, since: int | None = None, until: int | None = None
) -> Iterator[tuple[str, int, bytes]]:
    """Topic, time [ns] and CDR bytes of the messages on some topics, in the order of time, `until` left out."""
    connections = [connection for connection in reader.connections if connection.topic in topics]
    if connections:
        for connection, time, data in reader.messages(connections, start=since, stop=until):
            yield connection.topic, time, data


def first_message(reader: Reader, topic: str, message_type: str) -> Any:
    """The first message on a topic that has some."""
    _, _, data = next(read(reader, (topic,)))
    return deserialize(data, message_type)


def bag_sha256(path: str | Path) -> str:
    """SHA-256 over the content of a bag's data files in the order of their names.

    metadata.yaml is left out: it can be written anew from the data.
    """
    path = Path(path)
    files = sorted(f for f in path.iterdir() if f.suffix in DATA_SUFFIXES) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class BagWriter:
    """A new bag; left without an error it is complete, left with one it is removed.

    Parameters
    ----------
    path
        Directory to create.
    storage
        ``mcap`` or ``sqlite3``.

    Raises
    ------
    DataError
        If `path` exists.
    """

    def __init__(self, path: str | Path, storage: str = "mcap") -> None:
        self._path = Path(path)
        require_unused(self._path)
        self._writer = Writer(self._path, version=9, storage_plugin=StoragePlugin[storage.upper()])
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.__exit__(kind, error, at)
        if kind is not None:
            shutil.rmtree(self._path)

    def remember(self, key: str, value: str) -> None:
        """Keep a text in the bag's metadata."""
        self._writer.set_custom_data(key, value)

    def write(self, topic: str, time: int, message: Any, *, latched: bool = False) -> None:
        """Append a message at a time [ns]."""
        self.write_raw(topic, message.__msgtype__, time, serialize(message), latched=latched)

    def write_raw(
        self, topic: str, message_type: str, time: int, data: bytes | memoryview, *, latched: bool = False
    ) -> None:
        """Append a message that is serialised already."""
        if topic not in self._connections:
            qos = [_LATCHED] if latched else []
            self._connections[topic] = self._writer.add_connection(
                topic, message_type, typestore=TYPES, offered_qos_profiles=qos
            )
        self._writer.write(self._connections[topic], time, data)
