"""Format tracebacks for the author of a handler: starting at their own code, with paths relative to the project.

`brief` is used for a status and the termination log, `whole` for the log.
"""

import os
import traceback
from collections.abc import Iterator
from pathlib import Path

MAX_FRAMES = 8
"""Maximum number of frames per exception in a brief traceback. Frames in the middle are omitted."""
_LONGEST_LINE = 400
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep
_IMPORTS = "<frozen importlib"
_OMITTED = "<omitted>"
_project: tuple[str, ...] = ()


def set_project(folder: Path) -> None:
    """Show paths below this folder relative to it from now on."""
    global _project
    # A path in a traceback may have symbolic links in it.
    _project = (str(folder.resolve()) + os.sep, str(folder.absolute()) + os.sep)


def whole(error: BaseException) -> str:
    """Return the traceback of an error with its causes, without the runtime's frames before the user's. Never raises."""
    try:
        return "".join(_prepared(error).format()).rstrip()
    except Exception as problem:
        return f"{type(error).__name__} (failed to format its traceback: {type(problem).__name__})"


def brief(error: BaseException, limit: int = 3000) -> str:
    """Return a shortened traceback of at most `limit` characters. Keeps the last lines, each whole. Never raises."""
    try:
        text = "".join(_prepared(error, MAX_FRAMES).format()).rstrip()
    except Exception as problem:
        text = f"{type(error).__name__} (failed to format its traceback: {type(problem).__name__})"
    return last_lines("\n".join(_shortened(line) for line in text.splitlines()), limit)


def last_lines(text: str, limit: int) -> str:
    """Return the last lines of a text, at most `limit` characters. A longer last line is shortened in the middle."""
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
    """Return the type and the first line of the message of an error."""
    lines = text_of(error).splitlines()
    return f"{type(error).__name__}: {_shortened(lines[0])}" if lines else type(error).__name__


def cause(error: BaseException) -> str:
    """Return the error in one line with the last line of the project that it passed: "KeyError: 'x' (handler.py, line 3)"."""
    text, step, place = in_one_line(error), error.__traceback__, ""
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if (relative := _relative(name)) != name:
            place = f" ({relative}, line {step.tb_lineno})"
        step = step.tb_next
    # The message of a SyntaxError has its own place.
    return text if isinstance(error, SyntaxError) else text + place


def text_of(value: object) -> str:
    """Return str(value), or a placeholder if str() raises."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}, whose str() raised {type(error).__name__}>"


def printable(text: str) -> str:
    """Return a text with the characters escaped that UTF-8 cannot encode."""
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
            # The file with the syntax error: it has no frame if it is the handler itself.
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
    """Return the frames from the first user frame on, without the middle if there are too many. Empty without a user frame."""
    frames = [frame for frame in stack if not frame.filename.startswith(_IMPORTS)]
    frames = frames[next((n for n, frame in enumerate(frames) if _is_users(frame)), len(frames)) :]
    if not most or len(frames) <= most:
        return frames
    # Keep the first and the last two frames, then the project's frames closest to the error.
    wanted = {0, len(frames) - 2, len(frames) - 1}
    own = [n for n, frame in enumerate(frames) if frame.filename.startswith(_project)]
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
    """Return whether a frame belongs neither to the runtime nor to the standard library."""
    name = frame.filename
    if name.startswith((_OURS, "<frozen ")):
        return False
    return not name.startswith(_STANDARD) or name.startswith(
        (_STANDARD + "site-packages", _STANDARD + "dist-packages")
    )


def _relative(name: str) -> str:
    return next((name[len(folder) :] for folder in _project if name.startswith(folder)), name)


def _shortened(line: str, most: int = _LONGEST_LINE) -> str:
    if len(line) <= most:
        return line
    return f"{line[: most // 2 - 10]} [...] {line[len(line) - most // 2 + 10 :]}"
