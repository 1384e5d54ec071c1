"""TensorBoard's event files, written without a thread and without the host's name in them.

TensorBoard's own writer puts the host's name into the file's name; a run's folder is handed on.
Where TensorBoard is not installed, a run has no such files.
"""

import time
from collections.abc import Mapping
from pathlib import Path

try:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
except ModuleNotFoundError:
    INSTALLED = False
else:
    INSTALLED = True


class EventWriter:
    """One TensorBoard curve set: a folder to which every process adds a file of its own.

    Parameters
    ----------
    folder : Path
        Where the event files lie; TensorBoard shows the folder's name as the curve's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Path | None = None

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append scalars of one step.

        The first call of a process also tells TensorBoard to forget what earlier processes wrote
        for this step and later ones, so that a resumed run's curves do not double back.

        Parameters
        ----------
        step : int
            The abscissa.
        scalars : mapping
            Value by tag.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        now = time.time()
        events = []
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._folder / f"events.out.tfevents.{time.time_ns():020d}"
            start = SessionLog(status=SessionLog.START)
            events.append(Event(wall_time=now, file_version="brain.Event:2"))
            events.append(Event(wall_time=now, step=step, session_log=start))
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        events.append(Event(wall_time=now, step=step, summary=Summary(value=values)))
        with self._file.open("ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())
