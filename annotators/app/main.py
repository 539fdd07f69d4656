"""The annotation app: one server, one editing browser, any number that look on.

Whoever opens the page first edits; later browsers follow read-only and take over in turn when the editor leaves. Every change is in the
journal before it is drawn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from annotators.app.board import SELECTED, Board, Mark, landmark_colour
from annotators.app.journal import Journal
from annotators.app.live import Answer, LiveSolver, Solve, Suggest
from annotators.app.panel import STYLES, EditorPanel, SharedPanel, advice, show_help
from annotators.app.picture import RobotPicture, Style, loupe
from annotators.app.suspicion import FrameState, rank_frames, residuals_px
from annotators.landmarks import Landmark
from annotators.robot_view import T_cam_base_of
from annotators.types import Capture, Click, Solution
from dataengine.errors import StoreError
from dataengine.robot.catalogue import load_robot
from dataengine.view.viewer_server import close_server, open_server

Array = np.ndarray
GRAB_SCREEN = 0.02
"""A drag that starts within this share of the window's height of a click moves that click."""
PLAY_FPS, POLL_S = 10.0, 0.1
ZOOM = 6.0
MUTED, TROUBLE, GOOD = "#a6a9b0", "#ff9060", "#5aff8c"


def run_app(
    capture: Capture, landmarks: Sequence[Landmark], solve: Solve, suggest: Suggest, folder: Path, host: str = "127.0.0.1",
    port: int = 8090, fewest_clicks: int = 6, first_clicks: Sequence[Click] = (), until: Callable[[], bool] = lambda: False,
) -> None:  # fmt: skip
    """Serve until Ctrl-C (or ``until``). Clicks go to ``folder``/journal.jsonl and clicks.json; ``first_clicks`` seed a new journal.

    Raises ViewError (viser missing, port in use) and StoreError (journal locked, of another capture, unwritable) before serving.
    """
    app = App(capture, landmarks, solve, suggest, folder, host, port, fewest_clicks, first_clicks)
    try:
        app.run(until)
    except KeyboardInterrupt:
        return
    finally:
        app.stop()


class App:
    """State, and what keys, buttons and the mouse do with it. Callbacks come from viser's threads, so each takes the lock."""

    def __init__(
        self, capture: Capture, landmarks: Sequence[Landmark], solve: Solve, suggest: Suggest, folder: Path, host: str, port: int,
        fewest_clicks: int = 6, first_clicks: Sequence[Click] = (),
    ) -> None:  # fmt: skip
        self.capture, self.landmarks = capture, tuple(landmarks)
        self._lock = threading.RLock()
        self.frame, self.landmark, self.style, self.opacity, self.playing = 0, 0, "edges", 0.8, False
        self.answer = Answer(())
        self.editor: int | None = None
        self._editor_panel: EditorPanel | None = None
        self._aim: tuple[float, float] | None = None
        self._grabbed: int | None = None
        self._seen: set[int] = set()
        self._trouble, self._fewest = "", fewest_clicks
        self._picture = RobotPicture(load_robot(capture.robot))
        self.journal = Journal(folder, capture, first_clicks)
        try:
            self.server = open_server(host, port, capture.name)
        except BaseException:
            self.journal.close()
            raise
        self.board, self._panel = Board(self.server, capture.size), SharedPanel(self.server)
        self._live = LiveSolver(solve, suggest, self._answered, fewest_clicks)
        self._show_landmark()
        self.go(self._ranking()[0].frame, force=True)
        self._connect()
        self._live.ask(self.journal.clicks)

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Play where playing is on, until told to stop."""
        while not until():
            time.sleep(1 / PLAY_FPS if self.playing else POLL_S)
            if self.playing:
                self.go((self.frame + 1) % len(self.capture.frames))

    def stop(self) -> None:
        """End server and solver; the journal is whole at any time."""
        self._live.stop()
        close_server(self.server)
        self.journal.close()

    @property
    def clicks(self) -> tuple[Click, ...]:
        return self.journal.clicks

    # ---- what controls call -----------------------------------------------------------------------------------------

    def go(self, frame: int, force: bool = False) -> None:
        """Show a frame."""
        with self._lock:
            frame = int(np.clip(frame, 0, len(self.capture.frames) - 1))
            if frame == self.frame and not force:
                return
            self.frame, self._aim = frame, None
            self._seen.add(frame)
            self._rgb = self.capture.rgb(frame)
            with self.server.atomic():
                self.board.image.image = self._rgb
                self._draw_overlay()
                self._refresh()

    def choose(self, landmark: int) -> None:
        """Select a landmark."""
        with self._lock:
            landmark = landmark % len(self.landmarks)
            if landmark != self.landmark:
                self.landmark, self._aim = landmark, None
                self._show_landmark()
                self._refresh()

    def look(self, style: str, opacity: float) -> None:
        """How the posed robot is drawn over the picture."""
        with self._lock:
            if (style, opacity) != (self.style, self.opacity):
                self.style, self.opacity = style, opacity
                self._draw_overlay()
                self._refresh()

    def step(self, client: Any, by: float) -> None:
        self.go(self.frame + int(by))

    def play(self, client: Any) -> None:
        self.playing = not self.playing

    def next_suspicious(self, client: Any) -> None:
        with self._lock:
            ranking = [state.frame for state in self._ranking()]
            unseen = [frame for frame in ranking if frame not in self._seen]
            if not unseen:
                self._seen = {self.frame}
                unseen = [frame for frame in ranking if frame != self.frame] or [self.frame]
            self.go(unseen[0])

    def go_to_suggestion(self, client: Any) -> None:
        suggestion = self.answer.suggestion
        if suggestion is not None:
            self.go(suggestion.frame)
            self.choose([point.name for point in self.landmarks].index(suggestion.landmark))

    def next_landmark(self, client: Any, by: float) -> None:
        self.choose(self.landmark + int(by))

    def pick_landmark(self, client: Any, index: float) -> None:
        if index < len(self.landmarks):
            self.choose(int(index))

    def delete(self, client: Any) -> None:
        self._edit(lambda: self.journal.delete(self.frame, self.landmarks[self.landmark].name))

    def undo(self, client: Any) -> None:
        self._edit(self.journal.undo)

    def redo(self, client: Any) -> None:
        self._edit(self.journal.redo)

    def nudge(self, client: Any, by_u_px: float, by_v_px: float) -> None:
        with self._lock:
            current = self._current()
            if current is not None:
                self.place((current.uv_px[0] + by_u_px, current.uv_px[1] + by_v_px))

    def cycle_overlay(self, client: Any) -> None:
        self.look(STYLES[(STYLES.index(self.style) + 1) % len(STYLES)], self.opacity)

    def zoom(self, client: Any) -> None:
        place = self._target()
        self.board.show(client, place, 1.0 if place is None else ZOOM)

    def whole(self, client: Any) -> None:
        self.board.show(client)

    def help(self, client: Any) -> None:
        show_help(client)

    def place(self, uv_px: tuple[float, float]) -> None:
        """Set the selected landmark's click in the current frame."""
        with self._lock:
            width, height = self.capture.size
            uv = float(np.clip(uv_px[0], -0.5, width - 0.5)), float(np.clip(uv_px[1], -0.5, height - 0.5))
            self._aim = None
            self._edit(lambda: self.journal.place(self.frame, self.landmarks[self.landmark].name, uv))

    # ---- browsers ---------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self.server.on_client_connect(self._arrived)
        self.server.on_client_disconnect(lambda client: self._left(client.client_id))
        self.server.scene.on_click()(lambda e: self._clicked(e))
        self.board.image.on_drag("left")(lambda e: self._dragged(e))

    def _arrived(self, client: Any) -> None:
        with self._lock:
            self._fit(client)
            if self.editor is None:
                self._promote(client)
            else:
                client.gui.add_markdown("**Read-only**: another browser is editing. This one follows it.", order=1)

    def _fit(self, client: Any) -> None:
        """Show the whole picture, and again whenever the window (or the panel beside it) changes its shape."""
        fitted = [client.camera.aspect]
        self.board.show(client)

        def moved(camera: Any) -> None:
            if abs(camera.aspect - fitted[0]) > 0.01:
                fitted[0] = camera.aspect
                self.board.show(client)

        client.camera.on_update(moved)

    def _left(self, client_id: int) -> None:
        with self._lock:
            if client_id != self.editor:
                return
            self.editor, self._editor_panel = None, None
            waiting = self.server.get_clients()
            if waiting:
                client = waiting[min(waiting)]
                client.gui.reset()
                self._promote(client)

    def _promote(self, client: Any) -> None:
        self.editor = client.client_id
        self._editor_panel = EditorPanel(client, self, self.landmarks, len(self.capture.frames))
        self._refresh()

    def _clicked(self, event: Any) -> None:
        if event.client_id == self.editor:
            pixel = self.board.pixel(event.ray_origin, event.ray_direction)
            if pixel is not None:
                self.place(pixel)

    def _dragged(self, event: Any) -> None:
        """Aim while the button is down, place where it is let go; a drag that starts at a click moves that click."""
        if event.client_id != self.editor:
            return
        with self._lock:
            eye = np.asarray(event.client.camera.position)
            if event.phase == "start":
                self._grab(self.board.pixel(eye, np.asarray(event.start_position) - eye), event.client)
            pixel = self.board.pixel(eye, np.asarray(event.end_position) - eye)
            if pixel is None:
                return
            if event.phase == "end":
                self.place(pixel)
            else:
                self._aim = pixel
                self._draw_loupe()

    def _grab(self, pixel: tuple[float, float] | None, client: Any) -> None:
        mine = [click for click in self.clicks if click.frame == self.frame]
        if pixel is None or not mine:
            return
        away = [float(np.hypot(click.uv_px[0] - pixel[0], click.uv_px[1] - pixel[1])) for click in mine]
        nearest = int(np.argmin(away))
        distance = abs(float(client.camera.position[2]))
        window_px = 2 * distance * np.tan(client.camera.fov / 2) / 0.01
        if away[nearest] <= GRAB_SCREEN * window_px:
            self.choose([point.name for point in self.landmarks].index(mine[nearest].landmark))

    # ---- solving and drawing ----------------------------------------------------------------------------------------

    def _edit(self, change: Callable[[], Any]) -> None:
        with self._lock:
            try:
                changed = change()
            except StoreError as error:  # disk full, folder gone: nothing was taken, the annotator must know
                self._trouble = f"not saved: {error}"
                self._refresh()
                return
            self._trouble = ""
            if changed is not False:
                self._live.ask(self.clicks)
            self._refresh()

    def _answered(self, answer: Answer) -> None:
        with self._lock, self.server.atomic():
            keeps = answer.solution is None and len(answer.clicks) >= self._fewest  # a failed solve leaves the last good one standing
            self.answer = Answer(self.answer.clicks, self.answer.solution, None, answer.trouble) if keeps else answer
            self._draw_overlay()
            self._refresh()

    def _posed(self) -> tuple[Array, Array] | None:
        """T_cam_base and joints of the current frame, None without a solution for it."""
        s: Solution | None = self.answer.solution
        if s is None or not np.isfinite(s.T_world_cam[self.frame]).all():
            return None
        return T_cam_base_of(s.T_world_cam[self.frame], s.T_world_base[self.frame]), s.joints_rad[self.frame]

    def _draw_overlay(self) -> None:
        posed = self._posed()
        style = cast(Style, self.style if posed is not None else "off")
        T_cam_base, q = posed if posed is not None else (np.eye(4), np.zeros(self._picture.model.dof))
        self.board.overlay.image = self._picture.overlay(self.capture.K, self.capture.size, T_cam_base, q, style, self.opacity)

    def _ranking(self) -> list[FrameState]:
        return rank_frames(len(self.capture.frames), self.clicks, self.answer.solution, self.answer.clicks)

    def _current(self) -> Click | None:
        """The selected landmark's click in the current frame."""
        name = self.landmarks[self.landmark].name
        return next((c for c in self.clicks if c.frame == self.frame and c.landmark == name), None)

    def _believed(self) -> Array:
        """(L, 2) landmarks of the posed robot; nan without a solution."""
        posed = self._posed()
        if posed is None:
            return np.full((len(self.landmarks), 2), np.nan)
        return self._picture.landmarks_px(self.capture.K, *posed, self.landmarks)

    def _target(self) -> tuple[float, float] | None:
        """Where the selected landmark is: its click, else where the posed robot has it."""
        current = self._current()
        if current is not None:
            return current.uv_px
        u, v = self._believed()[self.landmark]
        return (float(u), float(v)) if np.isfinite(u) else None

    def _refresh(self) -> None:
        """Marks, loupe, table, status and controls from the state."""
        residual = residuals_px(self.answer.solution, self.answer.clicks)
        mine = {click.landmark: click for click in self.clicks if click.frame == self.frame}
        names = [point.name for point in self.landmarks]
        marks = [self._mark(click, names.index(name), residual) for name, click in mine.items() if name in names]
        with self.server.atomic():
            self.board.draw_marks(marks, self._believed())
            self.board.draw_target(None if self._current() else self._target())
            self._draw_loupe()
            self._panel.clicks(self.clicks, residual)
            self._panel.status(self._status())
            if self._editor_panel is not None:
                self._editor_panel.update(set(mine), self._ranking())

    def _mark(self, click: Click, index: int, residual: dict[tuple[int, str], tuple[float, float]]) -> Mark:
        error = residual.get((click.frame, click.landmark))
        text = click.landmark if error is None else f"{click.landmark} {np.hypot(*error):.1f} px"
        return Mark(click.uv_px, text, SELECTED if index == self.landmark else landmark_colour(index), error)

    def _status(self) -> list[tuple[str, str]]:
        answer, s = self.answer, self.answer.solution
        lines = [
            (MUTED, f"frame {self.frame} of {len(self.capture.frames)} · {self.capture.frames[self.frame]} · {len(self.clicks)} clicks")
        ]
        if self._trouble:
            lines.append((TROUBLE, self._trouble))
        if answer.clicks != self.clicks and self._live.busy:
            lines.append((MUTED, "solving …"))
        if answer.trouble:
            lines.append((TROUBLE, answer.trouble))
        if s is not None:
            if s.reasons[self.frame]:
                lines.append((TROUBLE, f"this frame: {s.reasons[self.frame]}"))
            lines.append((GOOD, f"{int(s.accepted.sum())} of {len(s.accepted)} frames accepted"))
            lines += [(TROUBLE, f"{flag.kind}: {flag.text}") for flag in s.flags]
        told = advice(answer.suggestion)
        return [*lines, told] if told is not None else lines

    def _draw_loupe(self) -> None:
        place = self._aim or self._target()
        self._panel.loupe(None if place is None else loupe(self._rgb, place), place)

    def _show_landmark(self) -> None:
        point = self.landmarks[self.landmark]
        self._panel.guide(point, self._picture.guide(point))
