"""Event files for TensorBoard: the numbers of a training log, and pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["EVENTS", "EventFile", "check_tensorboard", "numbers_of"]

EVENTS = "scoresde.tfevents."  # begins the names of event files; TensorBoard looks for ".tfevents"


def check_tensorboard() -> None:
    """Raise ValueError, which says how to install it, if TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise ValueError(
            "--tensorboard: the package tensorboard is not installed; install it by pip install "
            "'.[tensorboard]' or pip install tensorboard"
        )


class EventFile:
    """An event file that TensorBoard can read while it is written; a context manager.

    The file begins with a mark that all earlier events of its folder are void. So a folder whose
    events are written again, from the first step on, shows each point once.

    Args:
        path: New file. Its name should begin with `EVENTS` and end in a number that is larger than
            those of earlier files, because TensorBoard reads files in the order of their names.

    Raises:
        ValueError: If TensorBoard is not installed.
        FileExistsError: If the file exists.
    """

    def __init__(self, path: Path) -> None:
        check_tensorboard()
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = RecordWriter(open(path, "xb"))
        now = time.time()
        self._write(self._event(wall_time=now, file_version="brain.Event:2"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(self._event(wall_time=now, step=0, session_log=start))

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def numbers(self, step: int, wall_time: float, values: Mapping[str, float]) -> None:
        """Add a point to the curve of each tag.

        Args:
            step: Steps done.
            wall_time: Seconds since 1970.
            values: Tag -> value. Tags that agree up to the first "/" are shown together.
        """
        summary = self._summary()
        for tag, value in values.items():
            summary.value.add(tag=tag, simple_value=value)
        self._write(self._event(wall_time=wall_time, step=step, summary=summary))

    def picture(self, step: int, wall_time: float, tag: str, path: Path) -> None:
        """Add a PNG file, which may be animated.

        Args:
            step: Steps done.
            wall_time: Seconds since 1970.
            tag: Its tag, like those of `numbers`.
            path: The file.
        """
        content = path.read_bytes()
        width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))  # PNG header
        image = self._summary.Image(height=height, width=width, encoded_image_string=content)
        summary = self._summary(value=[self._summary.Value(tag=tag, image=image)])
        self._write(self._event(wall_time=wall_time, step=step, summary=summary))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Tags and values of a line of `log.jsonl`, without those that are not known.

    Args:
        row: The line. Its error by noise level has a tag for the middle of each bin of t.
    """
    values = {
        "loss/training": row["loss"],
        **_by_time("error_by_t", row.get("error_by_t", ())),
        "loss/reconstruction": row.get("reconstruction"),
        "loss/kl": row.get("kl"),
        "training/gradient_norm": row.get("grad_norm"),
        "training/learning_rate": row.get("learning_rate"),
        "training/images_per_second": row.get("images_per_second"),
        "training/skipped_steps": row.get("skipped"),
    }
    if found := row.get("validation"):
        values |= {
            "loss/held_out": found["loss"],
            "loss/training_data_averaged_weights": found.get("training_loss"),
            **_by_time("held_out_error_by_t", found.get("error_by_t", ())),
            "loss/held_out_reconstruction": found.get("reconstruction"),
            "loss/held_out_kl": found.get("kl"),
        }
        if "nll" in found:
            values[f"likelihood/held_out, {found['unit']}"] = found["nll"]
    return {tag: value for tag, value in values.items() if value is not None}


def _by_time(name: str, errors: Sequence[float | None]) -> dict[str, float | None]:
    """A tag for the middle of each bin of t."""
    return {f"{name}/t={(i + 0.5) / len(errors):.3f}": e for i, e in enumerate(errors)}
