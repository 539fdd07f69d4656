"""From a folder of frames of a real robot to labelled, uncertain, checked records."""
