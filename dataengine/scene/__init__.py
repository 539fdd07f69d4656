"""(DatasetSpec, seed, index) → SceneSpec: plain immutable data that describes one video completely. No Blender here."""
