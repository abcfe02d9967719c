"""Tracebacks as the author of a handler wants to read them: from their own first line on, with files named from the project.

`brief` is for a status and the termination log, `whole` for the log.
"""

import os
import traceback
from collections.abc import Iterator
from pathlib import Path

MOST_FRAMES = 8
"""Frames of one exception in a brief traceback; of more, the middle is left out."""
_LONGEST_LINE = 400
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep
_IMPORTS = "<frozen importlib"
_OMITTED = "<omitted>"
_project = ""


def set_project(folder: Path) -> None:
    """Name files of this folder relative to it from now on."""
    global _project
    _project = str(folder.resolve()) + os.sep


def whole(error: BaseException) -> str:
    """The traceback of an error with its causes, without the runtime's own frames at its head. Raises nothing."""
    try:
        return "".join(_prepared(error).format()).rstrip()
    except Exception as problem:
        return f"{type(error).__name__} (its traceback can't be shown: {type(problem).__name__})"


def brief(error: BaseException, limit: int = 3000) -> str:
    """The same, cut to the frames that tell most. limit: in characters; the last lines are kept, each whole. Raises nothing."""
    try:
        text = "".join(_prepared(error, MOST_FRAMES).format()).rstrip()
    except Exception as problem:
        text = f"{type(error).__name__} (its traceback can't be shown: {type(problem).__name__})"
    return last_lines("\n".join(_shortened(line) for line in text.splitlines()), limit)


def last_lines(text: str, limit: int) -> str:
    """The end of a text, from the start of a line on. limit: in characters; a last line that is longer loses its middle."""
    if len(text) <= limit:
        return text
    lines = text.splitlines()
    if len(lines) == 1:
        return _shortened(text, limit)
    kept = [_shortened(lines.pop(), limit - 4)]
    left = limit - len(kept[0]) - 4
    while lines and len(lines[-1]) < left:
        kept.append(lines.pop())
        left -= len(kept[-1]) + 1
    return "\n".join(["...", *reversed(kept)])


def in_one_line(error: BaseException) -> str:
    """Type and message of an error, as far as one line goes: what a table can show."""
    lines = text_of(error).splitlines()
    return f"{type(error).__name__}: {_shortened(lines[0])}" if lines else type(error).__name__


def text_of(value: object) -> str:
    """str() of anything, also where that fails."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}, whose str() raised {type(error).__name__}>"


def printable(text: str) -> str:
    """A text with what UTF-8 has no bytes for escaped."""
    return text.encode(errors="backslashreplace").decode()


class _Frames(traceback.StackSummary):
    def format_frame_summary(self, frame_summary: traceback.FrameSummary) -> str:
        if frame_summary.filename == _OMITTED:
            return f"  ... {frame_summary.name} ...\n"
        return super().format_frame_summary(frame_summary)


def _prepared(error: BaseException, most: int = 0) -> traceback.TracebackException:
    prepared = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    for each in _with_causes(prepared):
        frames = _kept(each.stack, most)
        is_syntax = isinstance(getattr(each, "filename", None), str)
        if is_syntax:
            # The file that does not parse: no frame of the user's leads there when it is the handler itself.
            each.filename = _relative(each.filename)
        for frame in frames:
            frame.filename = _relative(frame.filename)
        each.stack = None if is_syntax and not frames else _Frames(frames or each.stack)  # type: ignore[assignment]
    return prepared


def _with_causes(each: traceback.TracebackException | None) -> Iterator[traceback.TracebackException]:
    if each is not None:
        yield each
        for other in (each.__cause__, each.__context__, *(each.exceptions or ())):
            yield from _with_causes(other)


def _kept(stack: list[traceback.FrameSummary], most: int) -> list[traceback.FrameSummary]:
    """The frames from the user's first on; of very many without the middle. None when no frame is the user's."""
    frames = [frame for frame in stack if not frame.filename.startswith(_IMPORTS)]
    frames = frames[next((n for n, frame in enumerate(frames) if _is_users(frame)), len(frames)) :]
    if not most or len(frames) <= most:
        return frames
    # The first and the last two, and then of the project's own those nearest to the error.
    wanted = {0, len(frames) - 2, len(frames) - 1}
    own = [n for n, frame in enumerate(frames) if _project and frame.filename.startswith(_project)]
    for number in (*reversed(own), *range(len(frames) - 1, 0, -1)):
        if len(wanted) < most:
            wanted.add(number)
    kept, before = [], -1
    for number in sorted(wanted):
        if number > before + 1:
            words = f"{number - before - 1} more"
            kept.append(traceback.FrameSummary(_OMITTED, None, words, lookup_line=False))
        kept.append(frames[number])
        before = number
    return kept


def _is_users(frame: traceback.FrameSummary) -> bool:
    """Whether a frame is neither the runtime's own nor one of the standard library, through which it calls."""
    name = frame.filename
    if name.startswith((_OURS, "<frozen ")):
        return False
    return not name.startswith(_STANDARD) or name.startswith(
        (_STANDARD + "site-packages", _STANDARD + "dist-packages")
    )


def _relative(name: str) -> str:
    return name[len(_project) :] if _project and name.startswith(_project) else name


def _shortened(line: str, most: int = _LONGEST_LINE) -> str:
    if len(line) <= most:
        return line
    return f"{line[: most // 2 - 10]} [...] {line[len(line) - most // 2 + 10 :]}"
