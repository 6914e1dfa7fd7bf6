"""The outputs of `pipeline score` that show the video itself: HTML report, clips and overlay."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.outputs import STDOUT, OutputError
from pipeline.progress import ReportProgress, no_report
from pipeline.reports.clips import write_clips
from pipeline.reports.html_index import INDEX_NAME, write_index
from pipeline.reports.html_report import ReportSummary, RunFacts, write_report
from pipeline.reports.overlay import write_overlay
from pipeline.scoring.frame_scores import Scores
from pipeline.scoring.score_files import NamedVideo, write_each
from pipeline.video_writer import container_for, suffix_for_sound


@dataclass(frozen=True, slots=True)
class MediaOutputs:
    """Where the report, the clips and the overlay of scored videos go; None for what is not wanted.

    Attributes:
        report: The HTML file; for several videos a folder of one file each and `INDEX_NAME`.
        clips: The folder of clips; for several videos of one folder each.
        overlay: The video file; for several videos a folder of one file each.
        are_folders: Whether it is for several videos.
    """

    report: Path | None = None
    clips: Path | None = None
    overlay: Path | None = None
    are_folders: bool = False

    @property
    def index(self) -> Path | None:
        """The page that lists the reports of several videos."""
        return self.report / INDEX_NAME if self.report is not None and self.are_folders else None

    def report_of(self, video: NamedVideo) -> Path | None:
        """Where a video's report goes."""
        if self.report is None or not self.are_folders:
            return self.report
        return self.report / f"{video.name}.html"

    def check_reports(self, videos: Sequence[NamedVideo]) -> None:
        """Refuse a video whose report would be replaced by the index.

        Raises:
            OutputError: If there is one: a video whose name has no suffix can be.
        """
        for video in videos:
            if self.index is not None and self.report_of(video) == self.index:
                raise OutputError(
                    f"{video.path}: its report would have the name of the index, {INDEX_NAME}; "
                    "rename it, or score it alone"
                )

    def clips_of(self, video: NamedVideo) -> Path | None:
        """The folder of a video's clips."""
        if self.clips is None or not self.are_folders:
            return self.clips
        return self.clips / video.name

    def overlay_of(self, video: NamedVideo) -> Path | None:
        """Where a video's overlay goes.

        Raises:
            VideoError: If the video cannot be opened.
        """
        if self.overlay is None or not self.are_folders:
            return self.overlay
        return self.overlay / f"{video.name}{suffix_for_sound(video.source)}"

    def check_overlay(self, video: NamedVideo) -> None:
        """Find out before the work that the overlay's container cannot be written.

        Raises:
            VideoWriterError: If it is unknown or cannot hold the video's sound.
            VideoError: If the video cannot be opened.
        """
        if (overlay := self.overlay_of(video)) is not None:
            container_for(overlay, video.source)


class MediaWriter:
    """Writes the media outputs of videos one after the other, and their index at the end."""

    def __init__(self, outputs: MediaOutputs, run: RunFacts) -> None:
        self._outputs, self._run = outputs, run
        self._summaries: list[ReportSummary] = []

    def write(
        self,
        video: NamedVideo,
        scores: Scores,
        *,
        warning: str = "",
        report: ReportProgress = no_report,
    ) -> list[str]:
        """Write what is wanted of one video; each file appears whole or not at all.

        Args:
            video: The video.
            scores: Its scores.
            warning: Shown at the head of the report.
            report: Called with the progress of clips and overlay.

        Returns:
            As `write_each`: the outputs that failed, such as for a video that cannot be read again.

        Raises:
            OSError: If a file cannot be written.
        """

        def write_page(path: Path) -> None:
            summary = write_report(
                path,
                video.source,
                scores,
                self._run,
                name=video.name,
                truth=video.truth(scores.n_frames),
                index=self._outputs.index,
                warning=warning,
            )
            self._summaries.append(summary)

        def cut_clips(folder: Path) -> None:
            write_clips(folder, video.source, scores.events(), report=report)

        def draw_overlay(_: Path) -> None:
            path = self._outputs.overlay_of(video)
            assert path is not None
            write_overlay(path, video.source, scores, report=report)

        return write_each(
            ("report", self._outputs.report_of(video), write_page),
            ("clips", self._outputs.clips_of(video), cut_clips),
            ("overlay", self._outputs.overlay, draw_overlay),
        )

    def write_index(self) -> None:
        """Write the index of the reports of several videos, if there are any.

        Raises:
            OSError: If the file cannot be written.
        """
        if (index := self._outputs.index) is not None and self._summaries:
            write_index(index, "Scored videos", self._summaries, self._run)

    @property
    def page(self) -> Path | None:
        """The page to open: the index, or the only report; None where no report was written."""
        if not self._summaries or self._outputs.report == STDOUT:
            return None
        return self._outputs.index or self._outputs.report
