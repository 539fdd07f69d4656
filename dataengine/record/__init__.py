"""One table of modalities and the in-memory video record that rendered and annotated data share."""
