"""Everything that touches Blender (bpy, BlenderProc) lives in this package."""
