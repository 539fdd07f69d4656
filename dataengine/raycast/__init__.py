"""Posed triangle meshes and Embree rays, without Blender: depth, ids, normals, amodal masks, visibility of points."""

from dataengine.raycast.scene import Hits, RayScene, TriMesh
from dataengine.raycast.views import LabelView, amodal_masks, pixel_rays, point_visible, render_labels

__all__ = ["Hits", "LabelView", "RayScene", "TriMesh", "amodal_masks", "pixel_rays", "point_visible", "render_labels"]
