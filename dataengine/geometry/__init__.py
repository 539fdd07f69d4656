"""SE(3), pinhole cameras, depth ↔ disparity ↔ points. numpy only."""
