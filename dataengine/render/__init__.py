"""From a SceneSpec to a labelled Video: Blender passes, labels, sensor, and the workers that do it many times."""
