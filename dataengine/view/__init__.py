"""Pictures of videos: colour mapping, contact sheets, mp4, the one-file HTML report, terminal thumbnails."""
